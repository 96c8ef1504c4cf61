"""Hashes of words and of word n-grams, against plain Python."""

from __future__ import annotations

import re

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.kernels.characters import CODE_POINTS, decode, lower_words
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.texts import Texts
from tests.support import examples

M64 = (1 << 64) - 1
GOLDEN = 0x477DFAE55C69FCC1
TEXTS = st.lists(
    st.one_of(
        st.text(max_size=60),
        st.text(alphabet="aAbZ09_ .,-\n\x00éÉİıßſK\u0301\u200dΣσςДя中😀𝔄𐐀\u2028", max_size=80),
        st.text(alphabet="xY", max_size=3000),
        st.sampled_from(["", " ", "İİİİİİİİİ", "a" * 8, "a" * 16, "Straße", "e\u0301", "x" * 100_000]),
    ),
    max_size=6,
)


def lower(character: str) -> str:
    return character if character.islower() else character.lower()[0]


def plain_words(text: str) -> list[str]:
    return ["".join(map(lower, word)) for word in re.findall(r"\w+", text)]


def mix(x: int) -> int:
    x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & M64
    x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & M64
    return x ^ (x >> 33)


def plain_hash(word: str) -> int:
    data, state = word.encode(), 0
    full = len(data) // 8 * 8
    for k in range(0, full, 8):
        state = ((state ^ int.from_bytes(data[k : k + 8], "big")) * 0x9FB21C651E98DF25) & M64
        state ^= state >> 28
    return mix(((state ^ int.from_bytes(data[full:], "big")) + len(data) * 0x9E3779B97F4A7C15) & M64)


def plain_gram(hashes: list[int]) -> int:
    value = 0
    for item in hashes:
        value = (value * 0x9E3779B97F4A7C15 + item) & M64
    value = ((value ^ (value >> 31)) * 0xBF58476D1CE4E5B9) & M64
    return value ^ (value >> 29)


def split(values: np.ndarray, starts: np.ndarray) -> list[list[int]]:
    return [values[a:b].tolist() for a, b in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]


@examples(50)
@given(TEXTS)
def test_words_are_those_of_plain_python(texts: list[str]) -> None:
    batch = Texts.of(texts)
    assert split(*word_hashes(batch.data, batch.offsets)) == [[plain_hash(w) for w in plain_words(t)] for t in texts]


@examples(50)
@given(TEXTS, st.integers(1, 14))
def test_ngrams_are_those_of_plain_python(texts: list[str], n: int) -> None:
    batch = Texts.of(texts)
    expected = []
    for text in texts:
        found = [plain_hash(word) for word in plain_words(text)]
        size = min(n, len(found))
        expected.append([plain_gram(found[k : k + size]) for k in range(len(found) - size + 1)] if found else [])
    assert split(*ngram_hashes(*word_hashes(batch.data, batch.offsets), n)) == expected


@examples(50)
@given(st.lists(st.binary(max_size=40), max_size=4))
def test_bytes_that_are_no_utf8_stay_in_bounds(pieces: list[bytes]) -> None:
    batch = Texts.of(pieces)
    hashes, starts = word_hashes(batch.data, batch.offsets)
    assert len(hashes) == starts[-1] and (np.diff(starts) >= 0).all()


def test_every_code_point_is_decoded_and_classed() -> None:
    table = lower_words()
    assert not any(chr(code).isalnum() for code in range(CODE_POINTS, 0x110000))
    for code in (*range(0x80, 0xD800, 7), *range(0xE000, 0x110000, 61)):
        data = np.frombuffer(chr(code).encode(), np.uint8)
        assert decode(data, 0, len(data)) == (code, len(data))
    assert all(bool(table[code]) == bool(re.match(r"\w", chr(code))) for code in range(CODE_POINTS))
    # Where Python's own lower case gives one code point, it is this one.
    assert all(table[c] == ord(chr(c).lower()) for c in range(CODE_POINTS) if table[c] and len(chr(c).lower()) == 1)


def test_hashes_are_the_same_on_every_machine() -> None:
    batch = Texts.of(["Fever 38,5 °C: ΣΟΦΟΣ", "immunodeficiency"])
    hashes, starts = word_hashes(batch.data, batch.offsets)
    assert starts.tolist() == [0, 5, 6]
    assert hashes.tolist() == [plain_hash(w) for w in ["fever", "38", "5", "c", "σοφοσ", "immunodeficiency"]]
    assert hashes[0] == GOLDEN
