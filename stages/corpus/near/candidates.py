"""Which documents could be copies of each other: those that share a MinHash key, and what these share in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.jaccard import slots_for
from stages.corpus.kernels.minhash import NO_KEY

Rows = NDArray[np.int64]
PARTS = 8
"""Parts of the keys' range, a power of two: a table of one of them needs no more room than the keys of a band."""


def components(
    count: int,
    bands: int,
    keys_of: Callable[[int], Iterator[NDArray[np.uint64]]],
    threads: int = 1,
    parts: int = PARTS,
) -> tuple[Rows, Rows]:
    """Documents that are connected by shared keys, directly or over others.

    Each thread holds 16 bytes a document, and a table of the different keys of one band in one part of the keys' range:
    4 to 8 bytes a document where keys are spread evenly, as hashes are.

    Args:
        count: documents of the corpus.
        keys_of: the keys of a band, uint64[count] all together, in pieces. Threads ask for different bands.
        parts: a power of two.

    Returns:
        Rows of documents that have a partner, component after component, each component's rows ascending; and where
        components begin, int64[c + 1]. Components come in the order of their first rows.
    """

    shift = parts.bit_length() - 1

    def connected(first_band: int) -> Rows:
        parent = np.arange(count, dtype=np.int64)
        table = _Table(max(count >> shift, 1))
        for band in range(first_band, bands, threads):
            pieces = list(keys_of(band))  # read once, however many parts they are looked at in
            for part in range(parts):
                table.clear()
                first = 0
                for keys in pieces:
                    table.connect(keys, first, part, shift, parent)
                    first += len(keys)
        return parent

    with ThreadPoolExecutor(threads) as pool:
        parent, *others = pool.map(connected, range(threads))
    for other in others:
        _unite(parent, other)
    return _grouped(parent)


class _Table:
    """Keys and the first rows that have them: open addressing, at most half full."""

    def __init__(self, expected: int):
        slots = slots_for(expected)
        self._keys, self._rows = np.empty(slots, np.uint64), np.full(slots, -1, np.int64)
        self._used = 0

    def clear(self) -> None:
        """Forgets all keys."""
        self._rows.fill(-1)
        self._used = 0

    def connect(self, keys: NDArray[np.uint64], first: int, part: int, shift: int, parent: Rows) -> None:
        """Unites rows `first`, `first + 1`, ... with the first rows that have their keys, if these are in `part`."""
        place = 0
        while True:
            place, self._used = _connect(keys, place, first, part, shift, self._keys, self._rows, self._used, parent)
            if place == len(keys):
                return
            keys_before, rows_before = self._keys, self._rows
            slots = 2 * len(keys_before)
            self._keys, self._rows = np.empty(slots, np.uint64), np.full(slots, -1, np.int64)
            _move(keys_before, rows_before, self._keys, self._rows)


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
def _slot_of(keys: NDArray[np.uint64], rows: Rows, key: np.uint64) -> np.uint64:
    mask = np.uint64(len(keys) - 1)
    slot = key & mask
    while rows[slot] >= 0 and keys[slot] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@kernel
def _connect(
    keys: NDArray[np.uint64],
    place: int,
    first: int,
    part: int,
    shift: int,
    table_keys: NDArray[np.uint64],
    table_rows: Rows,
    used: int,
    parent: Rows,
) -> tuple[int, int]:
    """Takes keys from `place` on until the table is half full; returns where it stopped, and the slots in use.

    Of two roots the smaller row becomes the root of both.
    """
    for i in range(place, len(keys)):
        key = keys[i]
        if key == np.uint64(NO_KEY) or (shift > 0 and key >> np.uint64(64 - shift) != np.uint64(part)):
            continue
        slot = _slot_of(table_keys, table_rows, key)
        if table_rows[slot] < 0:
            if 2 * used >= len(table_keys):
                return i, used
            table_keys[slot], table_rows[slot] = key, first + i
            used += 1
            continue
        one, other = _root(parent, table_rows[slot]), _root(parent, first + i)
        if one < other:
            parent[other] = one
        elif other < one:
            parent[one] = other
    return len(keys), used


@kernel
def _move(keys: NDArray[np.uint64], rows: Rows, larger_keys: NDArray[np.uint64], larger_rows: Rows) -> None:
    """Enters what one table holds into another, empty one."""
    for i in range(len(keys)):
        if rows[i] >= 0:
            slot = _slot_of(larger_keys, larger_rows, keys[i])
            larger_keys[slot], larger_rows[slot] = keys[i], rows[i]


@kernel
def _flatten(parent: Rows) -> NDArray[np.int64]:
    """Points every row at its root; returns the members of each root, int64[n]."""
    sizes = np.zeros(len(parent), np.int64)
    for row in range(len(parent)):
        parent[row] = _root(parent, row)
        sizes[parent[row]] += 1
    return sizes


def _grouped(parent: Rows) -> tuple[Rows, Rows]:
    sizes = _flatten(parent)
    rows = np.flatnonzero(sizes[parent] > 1)
    rows = rows[np.argsort(parent[rows], kind="stable")]
    starts = np.concatenate([[0], np.cumsum(sizes[np.flatnonzero(sizes > 1)])]).astype(np.int64)
    return rows, starts
