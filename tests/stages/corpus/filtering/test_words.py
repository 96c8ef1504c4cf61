"""Words and sentences as spaCy finds them: words, what is known of them, and the rules that spare spaCy."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import unicodedata
from typing import Any

import numpy as np
import pytest
from datatrove.utils.text import PUNCTUATION_SET, TERMINAL_PUNCTUATION, split_into_sentences
from hypothesis import example, given
from hypothesis import strategies as st

from stages.corpus.filtering.english import _HideModule, _language, special_cases, tokenize_words
from stages.corpus.filtering.words import Splitter, Words
from stages.corpus.kernels import character_classes as classes
from stages.corpus.kernels.bytes_at_once import end_of_word, hash_of_bytes
from stages.corpus.kernels.c4_lines import sentences_of
from stages.corpus.kernels.character_classes import character_classes, code_point, space_size, strip_span, text_lengths
from stages.corpus.kernels.plain_tokens import LONG, plain_tokens
from stages.corpus.kernels.word_facts import (
    ALPHABETIC_TOKENS,
    CHARACTERS,
    ELLIPSES,
    FIRST,
    HASHES,
    LENGTH,
    PLAIN,
    PLAIN_CHARACTERS,
    SIZE,
    TOKENS,
)
from stages.corpus.kernels.word_split import BREAK, GAP_OPEN, GAP_TOKEN
from stages.corpus.texts import Texts
from tests.stages.corpus.filtering.oracle import spacy_words
from tests.support import examples

SPACES = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
hostile = st.one_of(
    st.text(max_size=60),
    st.text(st.sampled_from([*SPACES, "a", "B", "1", ".", "-", "(", ")", "'", "…", "é", "😀", "\0", "́"]), max_size=60),
)


@pytest.fixture(scope="module")
def splitter() -> Splitter:
    return Splitter()


def split(splitter: Splitter, texts: list[str]) -> tuple[Texts, Words]:
    batch = Texts.of(texts)
    return batch, splitter.split(batch.data, batch.offsets[:-1], batch.offsets[1:])


def words_of(splitter: Splitter, texts: list[str]) -> list[list[str]]:
    """The tokens that the splitter sees in each text."""
    batch, found = split(splitter, texts)
    words = []
    for i in range(len(texts)):
        mine: list[str] = []
        for k in range(found.firsts[i], found.firsts[i + 1]):
            row = splitter.facts[found.ids[k]]
            word = batch.data[found.starts[k] : found.starts[k] + row[SIZE]].tobytes().decode()
            assert len(word) == row[CHARACTERS] and not any(map(str.isspace, word))
            place = 0
            for token in range(row[FIRST], row[FIRST] + row[TOKENS]):
                length = int(splitter.tokens[token, LENGTH])
                mine.append(word[place : place + length])
                place += length
            assert place == len(word)
        words.append(mine)
    return words


def test_classes_are_pythons_datatroves_and_spacys() -> None:
    from spacy.pipeline.sentencizer import Sentencizer

    table = character_classes()
    assert set(classes.SENTENCE_ENDS) == set(Sentencizer.default_punct_chars)
    for code in range(sys.maxunicode + 1):
        character = chr(code)
        bits = int(table[code]) if code < classes.TABLE else 0
        assert bool(bits & classes.ALPHABETIC) == character.isalpha()
        assert bool(bits & classes.SYMBOL) == (character in PUNCTUATION_SET)
        assert bool(bits & classes.PUNCTUATION) == (unicodedata.category(character)[0] == "P")
        assert bool(bits & classes.DECIMAL) == character.isdecimal()
        assert bool(bits & classes.TERMINAL) == (character in TERMINAL_PUNCTUATION)


def test_code_points_and_white_space_are_pythons() -> None:
    for code in itertools.chain(range(0xD800), range(0xE000, sys.maxunicode + 1, 7), map(ord, SPACES)):
        data = np.frombuffer(chr(code).encode(), np.uint8)
        assert code_point(data, 0, len(data)) == (code, len(data))
        assert space_size(data, 0, len(data)) == (len(data) if chr(code).isspace() else 0)


@given(st.binary(max_size=40))
def test_bytes_that_are_no_text_are_never_read_past(raw: bytes) -> None:
    data = np.frombuffer(raw, np.uint8)
    for i in range(len(raw)):
        assert i < i + code_point(data, i, len(raw))[1] <= len(raw)
        assert i + space_size(data, i, len(raw)) <= len(raw)
        assert i <= end_of_word(data, i, len(raw)) <= len(raw)
    begin, end = strip_span(data, 0, len(raw))
    assert 0 <= begin <= end <= len(raw)


@examples(40)
@given(st.lists(hostile, max_size=6), st.integers(0, 5))
def test_words_are_those_of_split(texts: list[str], skip: int) -> None:
    batch = Texts.of(texts)
    counts, blank = text_lengths(batch.data, batch.offsets)
    assert counts.tolist() == [len(text) for text in texts]
    assert blank.tolist() == [not text.strip() for text in texts]
    for i, text in enumerate(texts):
        begin, end = strip_span(batch.data, batch.offsets[i], batch.offsets[i + 1])
        assert batch.data[begin:end].tobytes().decode() == text.strip()
    assert [word for text in texts for word in text.split()] == [
        batch.data[begin:end].tobytes().decode() for begin, end in _split(batch, skip)
    ]


def _split(batch: Texts, skip: int) -> list[tuple[int, int]]:
    """Words by a splitter that has seen `skip` letters before, which is full after each new word."""
    splitter = Splitter()
    splitter.split(np.frombuffer(b"a b c d e "[: 2 * skip], np.uint8), np.array([0]), np.array([2 * skip]))
    found = splitter.split(batch.data, batch.offsets[:-1], batch.offsets[1:])
    sizes = splitter.facts[found.ids, SIZE]
    return list(zip(found.starts.tolist(), (found.starts + sizes).tolist(), strict=True))


@given(hostile)
def test_gaps_say_what_lines_and_spacy_need(text: str) -> None:
    splitter = Splitter()
    _, found = split(splitter, [text])
    gaps = found.gaps.tolist()
    assert len(gaps) == len(text.split()) + 1
    lines = sum(gap // BREAK for gap in gaps)
    ended = gaps[-1] >= BREAK and not gaps[-1] & GAP_OPEN
    assert lines + (bool(text) and not ended) == len(text.splitlines())
    rest, spaces = text, []
    for word in text.split():
        space, _, rest = rest.partition(word)
        spaces.append(space)
    spaces.append(rest)
    tokens = [space not in ("", " ") or (space == " " and i == 0) for i, space in enumerate(spaces)]
    assert [bool(gap & GAP_TOKEN) for gap in gaps] == tokens


@given(st.binary(max_size=30), st.binary(max_size=30))
def test_hashes_of_bytes_tell_strings_apart_wherever_they_stand(first: bytes, second: bytes) -> None:
    data = np.frombuffer(first + second + first, np.uint8)
    places = [(0, len(first)), (len(first), len(first + second)), (len(first + second), len(data))]
    hashes = [hash_of_bytes(data, begin, end) for begin, end in places]
    assert hashes[0] == hashes[2] and (hashes[0] == hashes[1]) == (first == second)


def test_a_table_that_grows_and_a_memory_that_is_full_change_nothing() -> None:
    texts = [" ".join(f"w{i}x{j}" for j in range(3000)) for i in range(20)]
    patient, forgetful = Splitter(), Splitter(most_words=1000)
    for text in [*texts, texts[0]]:
        assert words_of(patient, [text]) == words_of(forgetful, [text]) == [text.split()]
    assert len(patient.facts) >= 60_000 and len(forgetful.facts) < 60_000


def marked(words: list[str]) -> list[str]:
    """Words with marks around them as the rules that spare spaCy take them."""
    marks = ["", ".", ",", ";", ":", "?", "!"]
    return [a + word + b + c for word in words for a in ("", "(") for b in ("", ")") for c in marks]


def assert_plain_rules_agree(words: list[str]) -> int:
    """Checks the rules that spare spaCy on words; how many were taken by them."""
    batch = Texts.of(words)
    counts, sizes = np.zeros(len(words), np.int32), np.empty(len(batch.data), np.int32)
    written = plain_tokens(
        batch.data, batch.offsets[:-1], batch.offsets[1:], special_cases(), character_classes(), counts, sizes
    )
    taken = np.flatnonzero(counts)
    if not len(taken):
        return 0
    rights, right_sizes = tokenize_words([words[i].encode() for i in taken])
    assert counts[taken].tolist() == rights.tolist()
    assert sizes[:written].tolist() == right_sizes.tolist()
    return len(taken)


def test_plain_rules_agree_with_spacy_on_its_special_cases_and_their_parts() -> None:
    from spacy.lang.en import English

    cases = [case for case in English().tokenizer.rules if case.split() == [case]]
    parts = {part for case in cases for part in (case, case.strip(".:;,?!()"), case[:-1], case[1:]) if part}
    parts |= {f"{part}-x" for part in parts} | {f"x-{part}" for part in parts}
    assert assert_plain_rules_agree(marked(sorted(parts))) > 10_000


def test_plain_rules_agree_with_spacy_on_letters_digits_and_units() -> None:
    words = ["".join(letters) for n in (1, 2, 3) for letters in itertools.product("aBm1k-", repeat=n)]
    words += [
        "5mg",
        "10km",
        "C3H8",
        "m2",
        "x1m2",
        "US",
        "AB",
        "aB",
        "Ab",
        "A-B",
        "ab-C",
        "mid-30s",
        "non-A",
        "i.e",
        "CO2",
    ]
    assert assert_plain_rules_agree(marked(words)) > 1_000


@examples(50)
@given(st.lists(st.from_regex(r"\(?([A-Za-z]{1,9}(-[A-Za-z]{1,5}){0,2}|[0-9]{1,5}|[A-Z]{1,4}[0-9]{1,3})\)?[.,;:?!]?", fullmatch=True), min_size=1, max_size=60))  # fmt: skip # noqa: E501
@example(["A):"])  # none of them is taken
def test_plain_rules_agree_with_spacy_on_any_plain_word(words: list[str]) -> None:
    assert_plain_rules_agree(words)


CLAUSES = """The patient's dose isn't 5mg/kg. (See e.g. Smith et al., 2010). U.S. A.B. 10-20% can't gonna cannot I'm
don't. https://a.example/b?c=d x@y.org C. 3.5 1,000 :) ;-) o'clock naïve 'quoted' “so” end... wait… #1 #tag * - • — –
[12] [edit]
{x} Dr. p.m. 9am a/b and/or _x_ C++ \\n $5 50°C. café. 你好。 مرحبا؟ 👍🏽 e\u0301 A.I. well-known! ?! ... Ill"""
clauses = st.sampled_from(CLAUSES.split())
spaced = st.lists(
    st.tuples(clauses, st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "\t", "\u00a0", "\r\n"])), max_size=25
)
prose = spaced.map(lambda parts: "".join(word + space for word, space in parts))


@examples(50)
@given(st.lists(st.one_of(prose, prose, hostile), min_size=1, max_size=5))
def test_words_are_spacys(texts: list[str]) -> None:
    assert words_of(Splitter(), texts) == [spacy_words().word_tokenize(text) for text in texts]


@examples(50)
@given(st.lists(st.one_of(prose, hostile), min_size=1, max_size=5))
def test_sentences_are_those_of_spacys_sentencizer(texts: list[str]) -> None:
    splitter = Splitter()
    _, found = split(splitter, texts)
    counts = np.zeros(len(texts), np.int64)
    sentences_of(found.firsts, found.ids, found.gaps, splitter.facts, counts)
    assert counts.tolist() == [len(split_into_sentences(text)) for text in texts]


@given(st.one_of(prose, hostile))
def test_facts_are_sums_over_words(text: str) -> None:
    splitter = Splitter()
    _, found = split(splitter, [text])
    words = words_of(splitter, [text])[0]
    plain = [word for word in words if any(character not in PUNCTUATION_SET for character in word)]
    sums = splitter.facts[found.ids].sum(axis=0)
    assert sums[TOKENS] == len(words) and sums[PLAIN] == len(plain)
    assert sums[PLAIN_CHARACTERS] == sum(map(len, plain))
    assert sums[ALPHABETIC_TOKENS] == sum(any(map(str.isalpha, word)) for word in words)
    assert sums[HASHES] == text.count("#") and sums[ELLIPSES] == text.count("...") + text.count("…")


def test_smileys_that_a_space_has_torn_are_not_put_together(splitter: Splitter) -> None:
    """The one known exception: spaCy's matcher takes `: )` for a smiley, finds that none has a space, and by then has
    lost sight of the true one that overlaps it."""
    assert words_of(splitter, ["so : ) and :)"]) == [["so", ":", ")", "and", ":)"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x" * 2500, ["x" * 1000, "x" * 1000, "x" * 500]),
        ("ab,cd;" * 200, ["ab", ",", "cd", ";"] * 200),
        ("é" * 1000, ["é" * 1000]),
        ("a," * 600_000, ["a," * 500] * 1200),
    ],
    ids=["letters", "symbols", "exactly", "huge"],
)
def test_very_long_words_are_cut_without_spacy(text: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: object) -> None:
        raise AssertionError("spaCy was asked")

    monkeypatch.setattr("stages.corpus.filtering.words.tokenize_words", refuse)
    assert len(text) >= LONG
    assert words_of(Splitter(), [text]) == [words]


def test_a_word_just_short_enough_is_spacys() -> None:
    text = "a,b" * 332 + "a.b"
    assert len(text) == LONG - 1
    assert words_of(Splitter(), [text]) == [spacy_words().word_tokenize(text)]


@pytest.mark.parametrize("megabytes", [5, pytest.param(50, marks=pytest.mark.full)])
def test_words_of_many_megabytes_without_a_space_need_little(splitter: Splitter, megabytes: int) -> None:
    text = b"abcdefghi," * (megabytes * 100_000)
    data = np.frombuffer(text, np.uint8)
    found = splitter.split(data, np.array([0]), np.array([len(data)]))
    assert len(found.ids) == 1 and splitter.facts[found.ids[0], TOKENS] == len(text) // 1000


def test_spacy_comes_without_torch() -> None:
    script = (
        "import sys; from stages.corpus.filtering.english import tokenize_words;"
        'counts, sizes = tokenize_words([b"can\'t"]); assert sizes.tolist() == [2, 3];'
        "assert 'torch' not in sys.modules, 'torch came in'"
    )
    subprocess.run([sys.executable, "-c", script], check=True, timeout=600)


def test_torch_is_hidden_from_no_other_thread() -> None:
    hidden, found_specs = _HideModule("torch"), []
    other = threading.Thread(target=lambda: found_specs.append(hidden.find_spec("torch")))
    other.start()
    other.join()
    assert found_specs == [None] and hidden.find_spec("torch.nn") is None
    with pytest.raises(ModuleNotFoundError, match="torch is hidden"):
        hidden.find_spec("torch")


def test_a_splitter_that_errs_is_asked_again_and_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    words = [b"can't", b"0):", b"e.g.,"]
    right = tokenize_words(words)
    english = _language()

    class Erring:
        """Loses a token of texts with a smiley that do not stand alone, and of one whatever stands beside it."""

        @staticmethod
        def tokenizer(text: str) -> Any:
            return english.tokenizer(text[:-1] if "0):\n" in text or text == lost else text)

    def erring() -> Any:
        return Erring

    vars(erring)["cache_clear"] = lambda: None
    lost = ""
    monkeypatch.setattr("stages.corpus.filtering.english._language", erring)
    again = tokenize_words(words)
    assert [column.tolist() for column in again] == [column.tolist() for column in right]
    lost = "can't"
    assert tokenize_words(words)[0][0] == 1
