"""Exact Jaccard similarity of the sets of word n-grams of two texts, from their words.

Nothing is sorted: the n-grams of one text are entered into a hash table, and those of others are looked up in it as
they roll along. Two n-grams are the same if their 64-bit hashes are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Hashes, Starts, kernel
from stages.corpus.kernels.ngrams import MULTIPLIER, mixed, power

SKETCH_WORDS = 32
"""64-bit words a sketch: 2,048 bits tell sets apart that differ in up to about 2,000 elements."""
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
    """The slot that holds an n-gram, or the empty one that it would be entered in."""
    slot = gram & mask
    while table[slot] != _EMPTY and table[slot] != gram:
        slot = (slot + _ONE) & mask
    return slot


@kernel
def enter(words: Hashes, first: int, last: int, n: int, table: Hashes, sketch: Hashes) -> int:
    """Enters the n-grams of words `first` to `last` into an emptied table, and into a sketch.

    In an odd sketch (Mitzenmacher, Pagh, Pham 2014) each element turns over one bit, chosen by its hash. Elements that
    two sets share cancel out, so each bit in which two sketches differ stands for at least one element that only one
    of the sets has.

    Args:
        table: uint64[>= slots_for(last - first)]; that many slots of it are used.

    Returns:
        How many different ones there are.
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
            gram = max(mixed(polynomial), _ONE)  # 0 stands for an empty slot
            free = place_of(table, mask, gram)
            if table[free] == _EMPTY:
                table[free] = gram
                count += 1
                bit = gram >> np.uint64(53)
                sketch[bit >> np.uint64(6)] ^= _ONE << (bit & np.uint64(63))
    return count


@kernel
def shared(
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
    """How many different n-grams of words `first` to `last` stand in a table; -1 once `least` is out of reach.

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
            gram = max(mixed(polynomial), _ONE)
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
    """How many different n-grams each text has, int64[texts], and their odd sketches, uint64[texts, SKETCH_WORDS].

    The words of text i are `words[begins[i]:ends[i]]`.
    """
    count = len(begins)
    sizes, sketches = np.zeros(count, np.int64), np.zeros((count, SKETCH_WORDS), np.uint64)
    table = np.empty(table_slots(begins, ends), np.uint64)
    for i in range(count):
        if begins[i] < ends[i]:
            sizes[i] = enter(words, begins[i], ends[i], n, table, sketches[i])
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
    """A number of elements in which the sets of two sketches differ at least."""
    total = np.uint64(0)
    for k in range(SKETCH_WORDS):
        x = first[k] ^ second[k]
        x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return int(total)
