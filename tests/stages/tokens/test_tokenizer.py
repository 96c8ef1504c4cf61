"""The tokenizer gives transformers' ids, loses no byte, and never encodes text as the end of text."""

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from stages.store import Artifact, ConfigError, InputError
from stages.tokens import TokensConfig, tokens
from stages.tokens.existing_tokenizer import load_tokenizer
from stages.tokens.reader import TokenReader
from stages.tokens.tokenizer import EOS, EOS_ID, LLAMA3_SPLIT, TextTokenizer, split_json, train, train_once


@pytest.fixture(scope="module")
def ours(documents: dict[str, list[str]]) -> TextTokenizer:
    return train([texts for texts in documents.values()], 400)


texts = st.text() | st.lists(
    st.sampled_from([EOS, "<|endoftext", "|>", " ", "\n\n", "don't", "1234567", "naïve", "β", "🧪", "\x00", "\u202e"])
).map("".join)


@given(texts)
def test_text_comes_back_byte_for_byte(ours: TextTokenizer, text: str) -> None:
    (ids,) = ours.encode([text])
    assert ours.tokenizer.decode(ids, skip_special_tokens=False) == text
    assert EOS_ID not in ids
    assert int(ours.token_bytes()[ids].sum()) == len(text.encode())


def test_tokens_are_laid_out_as_documented(ours: TextTokenizer) -> None:
    assert ours.eos_id == EOS_ID == ours.tokenizer.token_to_id(EOS)
    assert ours.vocabulary_size == 400
    sizes = ours.token_bytes()
    assert sizes[0] == 0 and (sizes[1:257] == 1).all() and (sizes[257:] > 1).all()
    split = json.loads(ours.tokenizer.to_str())["pre_tokenizer"]["pretokenizers"][0]
    assert split["pattern"] == {"Regex": LLAMA3_SPLIT}


def test_a_small_corpus_gives_a_smaller_vocabulary() -> None:
    small = train([["aaab aaab"]], 5000)
    assert 257 < small.vocabulary_size < 270


def test_order_and_batches_of_the_texts_do_not_matter(ours: TextTokenizer, documents: dict[str, list[str]]) -> None:
    everything = [text for texts in documents.values() for text in texts]
    reordered = train([[text] for text in reversed(everything)], 400)
    assert reordered.tokenizer.to_str() == ours.tokenizer.to_str()


def test_transformers_loads_it_with_equal_ids(artifact: Artifact, documents: dict[str, list[str]]) -> None:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    theirs = AutoTokenizer.from_pretrained(artifact.local("tokenizer"))
    assert isinstance(theirs, PreTrainedTokenizerFast)
    assert (theirs.eos_token, theirs.pad_token) == (EOS, EOS)
    assert theirs.eos_token_id == theirs.pad_token_id == EOS_ID
    assert theirs.model_max_length == 64 and theirs.chat_template is None and theirs.bos_token is None
    reader = TokenReader(artifact.local())
    assert len(theirs) == reader.vocabulary_size == len(reader.token_bytes) == artifact.manifest.counts["vocabulary"]
    everything = [text for texts in documents.values() for text in texts] + ["tab\t \r\n  x", "e\u0301 ﬁ İ"]
    ours = TextTokenizer(Tokenizer.from_file(str(artifact.local("tokenizer/tokenizer.json"))), EOS, EOS, {})
    for text, ids in zip(everything, ours.encode(everything), strict=True):
        assert theirs(text, split_special_tokens=True)["input_ids"] == ids
        assert theirs.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False) == text
        if EOS not in text:
            assert theirs(text)["input_ids"] == ids


def listing(folder: Path) -> Any:
    """What the corpus stage's listing gives: names, a digest, and how to open them."""
    names = sorted(path.name for path in folder.iterdir())
    return SimpleNamespace(
        location=str(folder),
        files=tuple(SimpleNamespace(name=name) for name in names),
        digest="d" * 32,
        open=lambda name: (folder / name).open("rb"),
    )


@pytest.fixture
def folder(tmp_path: Path, ours: TextTokenizer) -> Path:
    """A foreign tokenizer: its end of text is not ours, and is its last token."""
    from tokenizers import AddedToken

    other = Tokenizer.from_str(ours.tokenizer.to_str().replace(EOS, "<other>"))
    other.add_special_tokens([AddedToken("</s>", special=True, normalized=False)])
    other.enable_truncation(5)
    other.enable_padding()
    other.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": {"content": "</s>"}}))
    return tmp_path


def test_an_existing_tokenizer_is_used(folder: Path, make: Callable[..., Artifact], config: TokensConfig) -> None:
    texts = ["first </s> and <other> in a text longer than five tokens", "second"]
    artifact = make({"notes": texts}, {}, config, tokenizer=listing(folder))
    reader = TokenReader(artifact.local())
    assert (reader.eos_id, reader.vocabulary_size) == (400, 401)
    theirs = load_tokenizer(listing(folder))
    stream = reader.shard(0, 0).ravel()
    expected = [token for ids in theirs.encode(texts) for token in [*ids, 400]]
    assert stream[: len(expected)].tolist() == expected
    assert theirs.tokenizer.decode(theirs.encode(texts)[0], skip_special_tokens=False) == texts[0]
    assert reader.token_bytes[400] == 0 and reader.token_bytes[0] == 0
    assert json.loads(artifact.read("tokenizer/tokenizer_config.json"))["eos_token"] == "</s>"
    assert "tokenizer" in artifact.manifest.inputs


def test_large_vocabularies_take_four_bytes_a_token(
    folder: Path, make: Callable[..., Artifact], config: TokensConfig
) -> None:
    content = json.loads((folder / "tokenizer.json").read_text())
    content["model"]["vocab"]["Ġunused"] = 70_000
    (folder / "tokenizer.json").write_text(json.dumps(content))
    reader = TokenReader(make({"notes": ["a text"]}, {}, config, tokenizer=listing(folder)).local())
    assert reader.shard(0, 0).dtype == np.uint32
    assert reader.vocabulary_size == 70_001


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
        (lambda f: (f / "tokenizer.json").write_text("{"), "tokenizer.json cannot be loaded: EOF while parsing"),
        (lambda f: (f / "tokenizer.json").write_text('{"pre_tokenizer": {"type": "ByteLevel"}}'), "cannot be loaded"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"auto_map": {}}'), "auto_map"),
        (lambda f: (f / "tokenizer_config.json").write_text('{"eos_token": "the"}'), "no special token 'the'"),
        (lambda f: whitespace(f), "not byte-level"),
    ],
)
def test_tokenizers_that_cannot_be_used_are_refused(folder: Path, change: Callable[[Path], Any], message: str) -> None:
    change(folder)
    with pytest.raises(InputError, match=message):
        load_tokenizer(listing(folder))


def whitespace(folder: Path) -> None:
    other = Tokenizer(models.WordLevel({"a": 0}, "a"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    other.save(str(folder / "tokenizer.json"))


def test_a_folder_in_the_config_must_be_an_input(config: TokensConfig) -> None:
    with pytest.raises(ConfigError, match="/some/folder: its listing must be passed"):
        tokens.build(config.model_copy(update={"tokenizer": "/some/folder"}), {}, None)  # type: ignore[arg-type]


def test_fields_before_the_model_are_read_without_it(folder: Path) -> None:
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["model", ',"model":{'])
    names = ["</s>", "model"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="</s> $A model", special_tokens=[(name, tokenizer.token_to_id(name)) for name in names]
    )
    text = tokenizer.to_str()
    assert text.count(',"model":') > 1
    before, model = split_json(text)
    whole = json.loads(text)
    assert json.loads("{" + model[1:])["model"] == whole.pop("model") and before == whole


@pytest.mark.parametrize("left", [None, "", '{"version": "1.0", "model"', "\0" * 2000])
def test_a_tokenizer_is_trained_once(
    ours: TextTokenizer, documents: dict[str, list[str]], tmp_path: Path, left: str | None
) -> None:
    path = tmp_path / "trained.json"
    if left is not None:
        path.write_text(left)
    first = train_once(path, documents.values(), 400)
    second = train_once(path, iter([["never requested"]]), 400)
    assert first.tokenizer.to_str() == second.tokenizer.to_str() == ours.tokenizer.to_str()
    assert [path.name for path in tmp_path.iterdir()] == ["trained.json"]
