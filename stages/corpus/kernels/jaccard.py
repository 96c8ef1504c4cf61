"""Exact Jaccard similarity of the sets of word n-grams of two texts, from their words.

Nothing is sorted: the n-grams of one text are inserted into a hash table, and the rolling n-grams of others are looked
up in it. Two n-grams are equal if their 64-bit hashes are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Hashes, Starts, kernel
from stages.corpus.kernels.ngrams import MULTIPLIER, mix_ngram, power

SKETCH_SIZE = 32
"""64-bit numbers in a sketch: 2,048 bits distinguish sets that differ in up to about 2,000 elements."""
_EMPTY, _ONE = np.uint64(0), np.uint64(1)


@kernel
def slots_for(words: int) -> int:
    """Slots of a table for the n-grams of so many words: a power of two, at least half of them free."""
    slots = 4
    while slots < 2 * words:
        slots *= 2
    return slots


@kernel
def place_of(table: Hashes, mask: np.uint64, gram: np.uint64) -> np.uint64:
    """The slot that holds an n-gram, or the empty one where it would be inserted."""
    slot = gram & mask
    while table[slot] != _EMPTY and table[slot] != gram:
        slot = (slot + _ONE) & mask
    return slot


@kernel
def insert_ngrams(words: Hashes, first: int, last: int, n: int, table: Hashes, sketch: Hashes) -> int:
    """Clears a table and inserts the n-grams of words `first` to `last` into it, and into a sketch.

    In an odd sketch (Mitzenmacher, Pagh, Pham 2014) each element flips one bit, chosen by its hash. Elements that
    two sets share cancel out, so each bit in which two sketches differ stands for at least one element that only one
    of the sets has.

    Args:
        table: uint64[>= slots_for(last - first)]; that many slots of it are used.

    Returns:
        Number of different n-grams.
    """
    slots = slots_for(last - first)
    mask = np.uint64(slots - 1)
    for slot in range(slots):
        table[slot] = _EMPTY
    count = 0
    length = min(n, last - first)
    oldest = power(length - 1)
    polynomial = np.uint64(0)
    for k in range(first, last):
        if k - first >= length:
            polynomial -= words[k - length] * oldest
        polynomial = polynomial * MULTIPLIER + words[k]
        if k - first >= length - 1:
            gram = max(mix_ngram(polynomial), _ONE)  # 0 stands for an empty slot
            free = place_of(table, mask, gram)
            if table[free] == _EMPTY:
                table[free] = gram
                count += 1
                bit = gram >> np.uint64(53)
                sketch[bit >> np.uint64(6)] ^= _ONE << (bit & np.uint64(63))
    return count


@kernel
def count_shared(
    words: Hashes,
    first: int,
    last: int,
    n: int,
    table: Hashes,
    slots: int,
    seen: NDArray[np.int64],
    stamp: int,
    least: int,
) -> int:
    """How many different n-grams of words `first` to `last` are in a table; -1 once `least` cannot be reached.

    Args:
        slots: how many of the table's slots are used.
        seen: int64[slots], marked with `stamp` (another one each time), so that repeats count once.
    """
    mask = np.uint64(slots - 1)
    length = min(n, last - first)
    oldest = power(length - 1)
    polynomial = np.uint64(0)
    count = 0
    for k in range(first, last):
        if k - first >= length:
            polynomial -= words[k - length] * oldest
        polynomial = polynomial * MULTIPLIER + words[k]
        if k - first >= length - 1:
            gram = max(mix_ngram(polynomial), _ONE)
            slot = place_of(table, mask, gram)
            if table[slot] == gram and seen[slot] != stamp:
                seen[slot] = stamp
                count += 1
            elif count + (last - 1 - k) < least:
                return -1
    return count


@kernel
def sizes_and_sketches(
    words: Hashes, begins: Starts, ends: Starts, n: int
) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """How many different n-grams each text has, int64[texts], and their odd sketches, uint64[texts, SKETCH_SIZE].

    The words of text i are `words[begins[i]:ends[i]]`.
    """
    count = len(begins)
    sizes, sketches = np.zeros(count, np.int64), np.zeros((count, SKETCH_SIZE), np.uint64)
    table = np.empty(table_slots(begins, ends), np.uint64)
    for i in range(count):
        if begins[i] < ends[i]:
            sizes[i] = insert_ngrams(words, begins[i], ends[i], n, table, sketches[i])
    return sizes, sketches


@kernel
def table_slots(begins: Starts, ends: Starts) -> int:
    """Slots of a table that is large enough for each of the texts."""
    longest = 0
    for i in range(len(begins)):
        longest = max(longest, ends[i] - begins[i])
    return slots_for(longest)


@kernel
def least_difference(first: Hashes, second: Hashes) -> int:
    """A lower bound of the number of elements in which two sketched sets differ."""
    total = np.uint64(0)
    for k in range(SKETCH_SIZE):
        x = first[k] ^ second[k]
        x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return int(total)
