"""Encoders: gigatoken gives the tokenizer's ids or is not used, and long texts are encoded as if they were not."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, trainers

from stages.tokens.encoder import TRICKY_TEXTS, Encoder, GigatokenEncoder, TokenizersEncoder, encoder_for
from stages.tokens.long_texts import can_be_cut, encode_long
from stages.tokens.tokenizer import EOS, EOS_ID, LLAMA3_SPLIT, TextTokenizer, train
from tests.support import examples

GPT2_SPLIT = r"""'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"""
O200K_SPLIT = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

PIECES = [
    EOS,
    "<|endo",
    " ",
    "  ",
    "\n",
    "\r\n",
    "\t",
    "don't",
    "WE'LL",
    "12345",
    "naïve",
    "é",
    "β",
    "🧪",
    "\x00",
    "検査",
    "…",
    "!?",
]
texts = st.text() | st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=60).map("".join)

RUNS = "   \n\n\nAaʰ1'l!"
runs = st.lists(st.builds(str.__mul__, st.sampled_from(RUNS), st.sampled_from([1, 2, 9])), max_size=30).map("".join)


def with_split(split: str) -> TextTokenizer:
    """The trained tokenizer's vocabulary and merges behind another split pattern."""
    content = json.loads(
        train([list(TRICKY_TEXTS), ["the patient was given aspirin, don't you know"] * 9], 500).tokenizer.to_str()
    )
    content["pre_tokenizer"]["pretokenizers"][0]["pattern"] = {"Regex": split}
    return TextTokenizer(Tokenizer.from_str(json.dumps(content)), EOS, EOS, {})


@pytest.fixture(scope="module")
def ours() -> TextTokenizer:
    return with_split(LLAMA3_SPLIT)


@pytest.fixture(scope="module", params=[GigatokenEncoder, TokenizersEncoder], ids=lambda kind: kind.name)
def encoder(request: pytest.FixtureRequest, ours: TextTokenizer) -> Encoder:
    return request.param(ours)


def ids(encoder: Encoder, given: Any) -> list[list[int]]:
    array = given if isinstance(given, pa.Array) else pa.array(given, pa.string())
    found, offsets = encoder.encode(array)
    assert found.dtype == np.uint32 and offsets.dtype == np.int64 and offsets[0] == 0
    assert len(offsets) == len(array) + 1 and offsets[-1] == len(found)
    return [found[a:b].tolist() for a, b in pairwise(offsets.tolist())]


@examples(40)
@given(st.lists(texts, max_size=20))
def test_ids_are_the_tokenizer_s(encoder: Encoder, ours: TextTokenizer, given: list[str]) -> None:
    found = ids(encoder, given)
    assert found == ours.encode(given)
    assert all(EOS_ID not in one for one in found)


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_and_empty_arrays_are_encoded(encoder: Encoder, ours: TextTokenizer, kind: pa.DataType) -> None:
    array = pa.array([*TRICKY_TEXTS, "", "end"], kind)
    assert ids(encoder, array.slice(3, 5)) == ours.encode(array.slice(3, 5).to_pylist())
    assert ids(encoder, array.slice(2, 0)) == [] == ids(encoder, pa.array([], kind))
    assert ids(encoder, pa.array(["", ""], kind)) == [[], []]


def test_threads_share_an_encoder(ours: TextTokenizer) -> None:
    encoder, given = GigatokenEncoder(ours), [[f"{word} {n}" for word in TRICKY_TEXTS] for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda some: ids(encoder, some), given)) == [ours.encode(some) for some in given]


def test_gigatoken_is_chosen_when_it_agrees(ours: TextTokenizer) -> None:
    emitted: list[tuple[str, dict[str, Any]]] = []
    chosen = encoder_for(ours, ["a text of the corpus"] * 3, lambda type, **fields: emitted.append((type, fields)))
    assert chosen.name == "gigatoken"
    assert [type for type, _ in emitted] == ["encoder"]
    assert emitted[0][1]["name"] == "gigatoken" and emitted[0][1]["compared"] >= len(TRICKY_TEXTS) + 3


def unknown_split() -> TextTokenizer:
    return with_split(r"[a-z]+|[^a-z]")


def another_model() -> TextTokenizer:
    tokenizer = Tokenizer(models.WordLevel({EOS: 0, "?": 1, "a": 2}, "?"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(EOS, special=True, normalized=False)])
    return TextTokenizer(tokenizer, EOS, EOS, {})


@pytest.mark.parametrize("make", [unknown_split, another_model])
def test_what_gigatoken_does_not_support_is_reported_and_encoded_by_tokenizers(
    make: Callable[[], TextTokenizer], caplog: pytest.LogCaptureFixture
) -> None:
    emitted: list[tuple[str, dict[str, Any]]] = []
    tokenizer = make()
    chosen = encoder_for(tokenizer, [], lambda type, **fields: emitted.append((type, fields)))
    assert chosen.name == "tokenizers" == emitted[0][1]["name"]
    assert emitted[1][0] == "warning" and "the fast encoder does not support" in emitted[1][1]["message"]
    assert emitted[1][1]["message"] in caplog.text
    assert ids(chosen, TRICKY_TEXTS) == tokenizer.encode(list(TRICKY_TEXTS))


def test_other_ids_on_a_text_of_the_corpus_are_noticed(ours: TextTokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    real = GigatokenEncoder.encode

    def wrong(self: GigatokenEncoder, texts: pa.StringArray) -> Any:
        found, offsets = real(self, texts)
        found = found.copy()
        found[offsets[-2]] += 1
        return found, offsets

    monkeypatch.setattr(GigatokenEncoder, "encode", wrong)
    emitted: list[str] = []
    chosen = encoder_for(ours, ["the last text"], lambda type, **fields: emitted.append(fields.get("message", "")))
    assert chosen.name == "tokenizers" and "begins with 'the last text'" in emitted[1]


def test_added_tokens_that_are_not_special_stay_tokens(ours: TextTokenizer) -> None:
    other = Tokenizer.from_str(ours.tokenizer.to_str())
    other.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    other.add_special_tokens([AddedToken("<|im_end|>", special=True, normalized=False)])
    tokenizer = TextTokenizer(other, EOS, EOS, {})
    text = f"call <tool> then {EOS} or <|im_end|>"
    (expected,) = tokenizer.encode([text])
    assert other.token_to_id("<tool>") in expected and not {EOS_ID, other.token_to_id("<|im_end|>")} & {*expected}
    chosen = encoder_for(tokenizer, [text], lambda *args, **fields: None)
    assert ids(chosen, [text]) == [expected]
    assert encode_long(Tokenizer.from_str(tokenizer.text_json), text).tolist() == expected


@pytest.mark.parametrize("split", [LLAMA3_SPLIT, GPT2_SPLIT, O200K_SPLIT], ids=["llama3", "gpt2", "o200k"])
@examples(50)
@example(text="x\n" + " " * 10 + "\nAAa a a")  # the last line end of a run of white space decides
@example(text="a AAʰ" + "A" * 9 + "a b b b b")  # so does the last letter of a run, in GPT-4o's pattern
@given(text=runs | texts.map(lambda text: text * 3))
def test_long_texts_have_the_ids_of_the_whole(split: str, text: str) -> None:
    tokenizer = _plain(split)
    whole = tokenizer.encode(text).ids
    for window in (1, *range(6, 24, 2)):
        assert encode_long(tokenizer, text, window, margin=3).tolist() == whole


def _plain(split: str, known: dict[str, Tokenizer] = {}) -> Tokenizer:  # noqa: B006 - the three that hypothesis asks for
    """A tokenizer whose merges cross everything, so that ids show where text was split."""
    if split not in known:
        content = json.loads(with_split(split).text_json)
        step = content["pre_tokenizer"]["pretokenizers"]
        crossing = Tokenizer(models.BPE())
        crossing.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        draw = random.Random(1)
        some = ["".join(draw.choice(RUNS) * draw.choice([1, 1, 2, 9]) for _ in range(9)) for _ in range(4000)]
        alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
        crossing.train_from_iterator(some, trainers.BpeTrainer(vocab_size=3000, initial_alphabet=alphabet))
        content["model"] = json.loads(crossing.to_str())["model"]
        content["pre_tokenizer"]["pretokenizers"] = step
        known[split] = Tokenizer.from_str(json.dumps(content))
    return known[split]


def test_the_fallback_encodes_a_long_document_in_windows(ours: TextTokenizer) -> None:
    long = "The dose of 250 mg did not change in 12 weeks;\n\n serum potassium   rose. " * 500
    assert ids(TokenizersEncoder(ours, window=5000), ["short", long, ""]) == ours.encode(["short", long, ""])


@pytest.mark.parametrize("split", [LLAMA3_SPLIT, GPT2_SPLIT, O200K_SPLIT, "(?<name>[a-z]+)"])
def test_texts_are_cut_where_patterns_only_look_ahead(split: str) -> None:
    assert can_be_cut(with_split(split).content["pre_tokenizer"])


@pytest.mark.parametrize("split", ["(?<=a)b", "(?<!a)b", r"\bword", "^start|x", r"a\G"])
def test_texts_are_not_cut_where_patterns_look_back(split: str) -> None:
    step = {"type": "Split", "pattern": {"Regex": split}}
    assert not can_be_cut({"type": "Sequence", "pretokenizers": [step, {"type": "ByteLevel"}]})
    assert not can_be_cut({"type": "ByteLevel", "add_prefix_space": True}) and not can_be_cut(None)


def test_a_tokenizer_that_puts_a_space_first_has_the_ids_of_the_whole() -> None:
    content = json.loads(with_split(LLAMA3_SPLIT).tokenizer.to_str())
    content["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True
    tokenizer = TextTokenizer(Tokenizer.from_str(json.dumps(content)), EOS, EOS, {})
    long = "serum potassium rose. " * 1000
    assert ids(TokenizersEncoder(tokenizer, window=5000), [long]) == tokenizer.encode([long])
