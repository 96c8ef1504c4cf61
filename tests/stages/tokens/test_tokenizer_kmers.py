"""The k-mer tokenizer loses no byte, is loaded by stock transformers, and its compiled encoder gives the same ids."""

import re
from collections.abc import Callable
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import Artifact
from stages.tokens import TokensConfig
from stages.tokens.byte_level import byte_characters
from stages.tokens.config import KmersConfig
from stages.tokens.kmers import KmerEncoder, kmer_ids
from stages.tokens.reader import TokenReader
from stages.tokens.tokenizer import EOS, EOS_ID, TextTokenizer
from stages.tokens.tokenizer_kmers import kmer_tokenizer
from tests.support import examples

CONFIGS = [
    KmersConfig(),
    KmersConfig(k=3),
    KmersConfig(alphabet="rna", k=4),
    KmersConfig(alphabet="protein", k=2),
    KmersConfig(alphabet="AC]^-\\", k=3),
]
TOKENIZERS = [kmer_tokenizer(config) for config in CONFIGS]
both = pytest.mark.parametrize(("config", "ours"), list(zip(CONFIGS, TOKENIZERS, strict=True)))

texts = st.text(max_size=30) | st.lists(
    st.sampled_from(
        ["A", "C", "G", "T", "U", "ACGT", "ACGTACG", "MKV", "N", "acgt", "\n", EOS, "]^", "\\", "病", "\x00"]
    )
).map("".join)


@both
@examples(50)
@given(text=texts)
def test_text_comes_back_byte_for_byte(config: KmersConfig, ours: TextTokenizer, text: str) -> None:
    (ids,) = ours.encode([text])
    assert ours.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert EOS_ID not in ids
    assert int(ours.token_bytes()[ids].sum()) == len(text.encode())


@both
@examples(50)
@given(batch=st.lists(texts, max_size=6))
def test_the_compiled_encoder_gives_the_same_ids(config: KmersConfig, ours: TextTokenizer, batch: list[str]) -> None:
    data = np.frombuffer(b"??" + "".join(batch).encode(), np.uint8)
    offsets = np.cumsum([2, *(len(text.encode()) for text in batch)])
    ids, places = kmer_ids(data, offsets, config.letters, config.k)
    assert ids.dtype == np.uint32 and places[-1] == len(ids)
    assert [ids[a:b].tolist() for a, b in pairwise(places)] == ours.encode(batch)


@pytest.mark.parametrize("type", [pa.string(), pa.large_string()])
def test_arrow_arrays_are_encoded_as_they_lie(type: pa.DataType) -> None:
    texts = ["ACGTA", "", "NNACG", "é病<|endoftext|>", "GG"]
    encoder = KmerEncoder(CONFIGS[1])
    for array in (pa.array(texts, type), pa.array(["AC", *texts, "T"], type).slice(1, len(texts)), pa.array([], type)):
        ids, offsets = encoder.encode(array)
        assert [ids[a:b].tolist() for a, b in pairwise(offsets)] == TOKENIZERS[1].encode(array.to_pylist())


@both
def test_runs_are_cut_every_k_letters(config: KmersConfig, ours: TextTokenizer) -> None:
    text = "ACGTUCAMKVA-CNNACacGT\nACCA"
    letters = re.escape(config.letters)
    wanted = re.findall(rf"[{letters}]{{1,{config.k}}}|(?s:.)", text)
    (ids,) = ours.encode([text])
    assert [ours.tokenizer.decode([index]) for index in ids] == wanted


@both
def test_tokens_are_laid_out_as_documented(config: KmersConfig, ours: TextTokenizer) -> None:
    words = ["".join(word) for size in range(2, config.k + 1) for word in product(config.letters, repeat=size)]
    names = [EOS, *sorted(byte_characters()), *words]
    assert [ours.tokenizer.id_to_token(index) for index in range(ours.vocabulary_size)] == names
    sizes = ours.token_bytes()
    assert sizes[0] == 0 and (sizes[1:257] == 1).all() and sizes[257:].tolist() == list(map(len, words))


def test_bytes_have_the_characters_of_gpt2() -> None:
    from tokenizers import decoders, pre_tokenizers

    assert sorted(byte_characters()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    every = "".join(map(chr, range(0x80))) + "éÿ病"
    (piece,) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(every)
    assert piece[0] == "".join(byte_characters()[byte] for byte in every.encode())
    assert decoders.ByteLevel().decode([piece[0]]) == every


def test_transformers_loads_it_with_equal_ids(tmp_path: Path) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    ours = TOKENIZERS[1]
    for name, content in ours.files(64).items():
        (tmp_path / name).write_bytes(content)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    assert isinstance(loaded, PreTrainedTokenizerFast) and loaded.eos_token_id == EOS_ID == loaded.pad_token_id
    for text in ("ACGTACGTNNNNACGTTacgt", "naïve 病\r\n", "A" * 1000):
        assert loaded(text)["input_ids"] == ours.encode([text])[0]
        assert loaded.decode(loaded(text)["input_ids"]) == text


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"alphabet": "AACG"}, "'AACG' is not an alphabet: use dna, rna, protein"),
        ({"alphabet": "AC GT"}, "is not an alphabet"),
        ({"alphabet": "ÄC"}, "is not an alphabet"),
        ({"alphabet": ""}, "is not an alphabet"),
        ({"k": 9}, "less than or equal to 8"),
        ({"alphabet": "protein", "k": 5}, r"a vocabulary of 3,368,657 tokens, more than 1,048,576; use a smaller k"),
    ],
)
def test_invalid_alphabets_are_refused(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        KmersConfig.model_validate(fields)
    with pytest.raises(ValueError, match="kmers and tokenizer exclude each other"):
        TokensConfig(kmers=KmersConfig(), tokenizer="/somewhere")


def test_the_stage_writes_streams_of_kmers(make: Callable[..., Artifact]) -> None:
    texts = {"genome": ["ACGTACGTAC", "", "NNNACGTT", "acg<|endoftext|>"]}
    artifact = make(texts, {}, TokensConfig(sequence_length=8, shard_rows=4, kmers=KmersConfig(k=3)))
    reader = TokenReader(artifact.local())
    assert reader.vocabulary_size == 257 + 16 + 64
    ids = [reader.rows(0, 0, row).tolist() for row in range(int(reader.shards.rows[0][0]))]
    stream = [index for row in ids for index in row]
    wanted = [index for text in texts["genome"] for index in [*TOKENIZERS[1].encode([text])[0], EOS_ID]]
    assert stream[: len(wanted)] == wanted and set(stream[len(wanted) :]) <= {EOS_ID}
    assert np.asarray(reader.token_bytes).tolist() == TOKENIZERS[1].token_bytes().tolist()
    event = next(event for event in artifact.events().read()[0] if event["type"] == "tokenizer")
    assert event["vocabulary"] == 337 and event["trained"] is False
