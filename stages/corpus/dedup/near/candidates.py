"""Candidates for copies of each other: connected components of documents that share a MinHash key."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.jaccard import slots_for
from stages.corpus.kernels.minhash import NO_KEY

Rows = NDArray[np.int64]
PART_KEYS = 4096
"""Keys of a band that are processed together: a table of them fits into a core's own cache."""
MOST_PARTS = 4096
"""Most parts that can be written to at the same time."""


def components(
    count: int,
    bands: int,
    keys_of: Callable[[int], NDArray[np.uint64]],
    threads: int = 1,
    part_keys: int = PART_KEYS,
) -> tuple[Rows, Rows]:
    """Documents that are connected by shared keys, directly or through others.

    The keys of a band are first partitioned by range, as in a radix join (Manegold, Boncz, Kersten 2002): with one
    table of all keys nearly every lookup would miss the cache. Each thread holds 32 bytes for each document, and a
    table of the largest part: 32 to 64 bytes for each key in it.

    Args:
        count: documents of the corpus.
        keys_of: the keys of a band, uint64[count]. Threads ask for different bands.
        part_keys: approximate number of keys in a part, for evenly distributed keys.

    Returns:
        Rows of documents that have a partner, component after component, each component's rows ascending; and where
        components begin, int64[c + 1]. Components come in the order of their first rows.
    """
    bits = min(max(count // part_keys, 1), MOST_PARTS).bit_length() - 1

    def connected(first_band: int) -> Rows:
        parent = np.arange(count, dtype=np.int64)
        for band in range(first_band, bands, threads):
            _connect(*_partition(keys_of(band), bits), parent)
        return parent

    with ThreadPoolExecutor(threads) as pool:
        parent, *others = pool.map(connected, range(threads))
    for other in others:
        _unite(parent, other)
    return _group(parent)


def _partition(keys: NDArray[np.uint64], bits: int) -> tuple[NDArray[np.uint64], Rows, Rows]:
    """Keys and their rows by the upper `bits` of the key, rows ascending in each part; and where parts begin."""
    begins = np.zeros((1 << bits) + 1, np.int64)
    _count(keys, bits, begins[1:])
    begins = np.cumsum(begins)
    spread, rows = np.empty(begins[-1], np.uint64), np.empty(begins[-1], np.int64)
    _scatter(keys, bits, begins[:-1].copy(), spread, rows)
    return spread, rows, begins


@kernel
def _part_of(key: np.uint64, bits: int) -> np.uint64:
    return (key >> np.uint64(1)) >> np.uint64(63 - bits)  # in two steps, since a shift by 64 is undefined


@kernel
def _count(keys: NDArray[np.uint64], bits: int, counts: Rows) -> None:
    for key in keys:
        if key != np.uint64(NO_KEY):
            counts[_part_of(key, bits)] += 1


@kernel
def _scatter(keys: NDArray[np.uint64], bits: int, ends: Rows, spread: NDArray[np.uint64], rows: Rows) -> None:
    for i in range(len(keys)):
        if keys[i] != np.uint64(NO_KEY):
            part = _part_of(keys[i], bits)
            spread[ends[part]], rows[ends[part]] = keys[i], i
            ends[part] += 1


@kernel
def _root(parent: Rows, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@kernel
def _unite(parent: Rows, other: Rows) -> None:
    """Connects in `parent` what is connected in `other`."""
    for row in range(len(parent)):
        one, two = _root(parent, row), _root(parent, other[row])
        if one < two:
            parent[two] = one
        elif two < one:
            parent[one] = two


@kernel
def _connect(keys: NDArray[np.uint64], rows: Rows, begins: Rows, parent: Rows) -> None:
    """Unites each row with the first one that has its key, part by part.

    Of two roots the smaller row becomes the root of both.
    """
    largest = slots_for(np.diff(begins).max())
    table_keys, table_rows = np.empty(largest, np.uint64), np.empty(largest, np.int64)
    for part in range(len(begins) - 1):
        slots = slots_for(begins[part + 1] - begins[part])
        table_rows[:slots] = -1
        mask = np.uint64(slots - 1)
        for i in range(begins[part], begins[part + 1]):
            slot = keys[i] & mask
            while table_rows[slot] >= 0 and table_keys[slot] != keys[i]:
                slot = (slot + np.uint64(1)) & mask
            if table_rows[slot] < 0:
                table_keys[slot], table_rows[slot] = keys[i], rows[i]
                continue
            one, other = _root(parent, table_rows[slot]), _root(parent, rows[i])
            if one < other:
                parent[other] = one
            elif other < one:
                parent[one] = other


@kernel
def _flatten(parent: Rows) -> NDArray[np.int64]:
    """Points every row at its root; returns the members of each root, int64[n]."""
    sizes = np.zeros(len(parent), np.int64)
    for row in range(len(parent)):
        parent[row] = _root(parent, row)
        sizes[parent[row]] += 1
    return sizes


def _group(parent: Rows) -> tuple[Rows, Rows]:
    sizes = _flatten(parent)
    rows = np.flatnonzero(sizes[parent] > 1)
    rows = rows[np.argsort(parent[rows], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes[np.flatnonzero(sizes > 1)])]).astype(np.int64)
    return rows, starts
