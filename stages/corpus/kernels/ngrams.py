"""Hashes of word n-grams: a polynomial in the words' hashes, then mixed; the rolling update takes two products."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_29, _31 = np.uint64(29), np.uint64(31)


@kernel
def mix_ngram(polynomial: np.uint64) -> np.uint64:
    """An n-gram's hash from its polynomial."""
    value = (polynomial ^ (polynomial >> _31)) * _MIX
    return value ^ (value >> _29)


@kernel
def power(n: int) -> np.uint64:
    """MULTIPLIER to the power n, modulo 2^64."""
    out = np.uint64(1)
    for _ in range(n):
        out *= MULTIPLIER
    return out


@kernel
def ngram_hashes(
    hashes: NDArray[np.uint64], starts: NDArray[np.int64], n: int
) -> tuple[NDArray[np.uint64], NDArray[np.int64]]:
    """Hash of each run of n words of each text, in order, from `word_hashes`.

    A text of fewer than n words has one n-gram, of all its words; a text without words has none.

    Returns:
        (grams: uint64[k], gram_starts: int64[texts + 1]), in the form of `word_hashes`.
    """
    count = len(starts) - 1
    gram_starts = np.zeros(count + 1, np.int64)
    for i in range(count):
        words = starts[i + 1] - starts[i]
        gram_starts[i + 1] = gram_starts[i] + (max(words - n + 1, 1) if words > 0 else 0)
    grams = np.empty(gram_starts[count], np.uint64)
    oldest = power(n - 1)
    for i in range(count):
        begin, end = starts[i], starts[i + 1]
        polynomial = np.uint64(0)
        for k in range(begin, min(begin + n, end)):
            polynomial = polynomial * MULTIPLIER + hashes[k]
        if end > begin:
            out = gram_starts[i]
            grams[out] = mix_ngram(polynomial)
            for k in range(begin + n, end):
                out += 1
                polynomial = (polynomial - hashes[k - n] * oldest) * MULTIPLIER + hashes[k]
                grams[out] = mix_ngram(polynomial)
    return grams, gram_starts
