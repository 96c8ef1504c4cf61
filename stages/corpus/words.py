"""Words, their hashes and the hashes of word n-grams: what filters, decontamination and deduplication share."""

from __future__ import annotations

import hashlib
import re
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]

_WORD = re.compile(r"\w+")
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_KNOWN: dict[str, int] = {}
_KNOWN_LIMIT = 1_000_000


def words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return _WORD.findall(text.lower())


@lru_cache(maxsize=1)
def hashes_of(text: str) -> Hashes:
    """`word_hashes(words(text))`; the last answer is kept, because several steps ask for the same text."""
    return word_hashes(words(text))


def text_hash(text: str) -> str:
    """128-bit BLAKE2b of the text's UTF-8; 32 hex digits."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()


def hash64(text: str) -> int:
    """64-bit BLAKE2b of a string, the same on every machine."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")


def word_hashes(found: list[str]) -> Hashes:
    """64-bit hash of each word, uint64[n]. Each word is hashed once a process."""
    if len(_KNOWN) > _KNOWN_LIMIT:
        _KNOWN.clear()
    out = np.empty(len(found), np.uint64)
    for i, word in enumerate(found):
        value = _KNOWN.get(word)
        if value is None:
            value = _KNOWN[word] = hash64(word)
        out[i] = value
    return out


def ngram_hashes(hashes: Hashes, n: int) -> Hashes:
    """Hash of each run of n words, uint64[max(0, len - n + 1)]: a polynomial in the words' hashes, then mixed."""
    count = len(hashes) - n + 1
    if count <= 0:
        return np.empty(0, np.uint64)
    out = hashes[:count].copy()
    for offset in range(1, n):
        out *= _MULTIPLIER
        out += hashes[offset : offset + count]
    out ^= out >> np.uint64(31)
    out *= _MIX
    out ^= out >> np.uint64(29)
    return out
