"""Which of a fixed set of word n-grams, of several lengths, occur in texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.word_hashes import mix64

Hashes = NDArray[np.uint64]
Places = NDArray[np.int64]

PREFIX = 5
"""Up to so many words, a run is abandoned as soon as no wanted n-gram begins with it; few runs remain after that."""
_MULTIPLIER = 0x9E3779B97F4A7C15


@kernel
def _extend(gram: np.uint64, word: np.uint64) -> np.uint64:
    """The polynomial in the hashes of a run of words, extended by one word."""
    return gram * np.uint64(_MULTIPLIER) + word


@kernel
def _is_set(bits: Hashes, hash: np.uint64) -> bool:
    place = hash & np.uint64(64 * len(bits) - 1)
    one = bits[np.int64(place >> np.uint64(6))] >> (place & np.uint64(63))
    return (one & np.uint64(1)) != 0


@kernel
def _set(bits: Hashes, hash: np.uint64) -> None:
    place = hash & np.uint64(64 * len(bits) - 1)
    bits[np.int64(place >> np.uint64(6))] |= np.uint64(1) << (place & np.uint64(63))


@kernel
def grams_of(hashes: Hashes, starts: Places, n: int, bits: Hashes) -> tuple[Hashes, Places]:
    """The n-grams of each text; one n-gram of all its words where it has fewer than n.

    Args:
        hashes, starts: the words of m texts, see `word_hashes.word_hashes`.
        bits: the filter of `find_grams`, 64 bits an element, a power of two of them; the bits of these n-grams are set.

    Returns:
        (grams: uint64[k], gram_starts: int64[m + 1])
    """
    texts = len(starts) - 1
    out = np.empty(len(hashes), np.uint64)
    gram_starts = np.zeros(texts + 1, np.int64)
    k = 0
    for text in range(texts):
        length = min(n, starts[text + 1] - starts[text])
        for first in range(starts[text], starts[text + 1] - length + 1 if length else starts[text]):
            gram = np.uint64(0)
            for i in range(length):
                gram = _extend(gram, hashes[first + i])
                if i < PREFIX or i + 1 == length:
                    _set(bits, mix64(gram))
            out[k] = mix64(gram)
            k += 1
        gram_starts[text + 1] = k
    return out[:k].copy(), gram_starts


@kernel
def _place(grams: Hashes, low: int, stop: int, gram: np.uint64) -> int:
    """Index of `gram` in the sorted grams[low:stop], -1 if it is missing."""
    high = stop
    while low < high:
        middle = (low + high) // 2
        if grams[middle] < gram:
            low = middle + 1
        else:
            high = middle
    return low if low < stop and grams[low] == gram else -1


@kernel
def find_grams(
    hashes: Hashes, starts: Places, grams: Hashes, firsts: Places, bits: Hashes, texts_found: Places, found: Places
) -> int:
    """Finds n-grams in texts.

    Args:
        hashes, starts: the words of m texts, see `word_hashes.word_hashes`.
        grams: the wanted n-grams: those of n words are `grams[firsts[n]:firsts[n + 1]]`, sorted.
        firsts: int64[longest + 2].
        bits: a filter that is set for each wanted n-gram and for all its beginnings of up to `PREFIX` words.
        texts_found, found: written: text and index in `grams` of each occurrence, up to their length.

    Returns:
        Number of occurrences; if it exceeds the length of `found`, call again with larger arrays.
    """
    longest = len(firsts) - 2
    shortest = 1
    while shortest < longest and firsts[shortest + 1] == 0:
        shortest += 1
    begin = min(shortest, PREFIX)
    count = 0
    for text in range(len(starts) - 1):
        end = starts[text + 1]
        for first in range(starts[text], end - begin + 1):
            gram = np.uint64(0)
            for i in range(first, first + begin - 1):
                gram = _extend(gram, hashes[i])
            for n in range(begin, min(longest, end - first) + 1):
                gram = _extend(gram, hashes[first + n - 1])
                if n > PREFIX and firsts[n] == firsts[n + 1]:
                    continue
                mixed = mix64(gram)
                if not _is_set(bits, mixed):
                    if n <= PREFIX:
                        break
                    continue
                place = _place(grams, firsts[n], firsts[n + 1], mixed)
                if place >= 0:
                    if count < len(found):
                        texts_found[count], found[count] = text, place
                    count += 1
    return count
