"""Which documents could be copies of each other: those that share a MinHash key, and what these share in turn."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel
from stages.corpus.kernels.minhash import NO_KEY

Rows = NDArray[np.int64]
BYTES_A_KEY = 40
"""What a key costs while keys are sorted: itself, its row, the order, and copies of them."""


def components(
    count: int, bands: int, keys_of: Callable[[int], Iterator[NDArray[np.uint64]]], memory_bytes: int
) -> tuple[Rows, Rows]:
    """Documents that are connected by shared keys, directly or over others.

    Holds 8 bytes a document, and the keys of one band; of these as many at a time as `memory_bytes` allow.

    Args:
        count: documents of the corpus.
        keys_of: the keys of a band, uint64[count] all together, in pieces.

    Returns:
        Rows of documents that have a partner, component after component, each component's rows ascending; and where
        components begin, int64[c + 1]. Components come in the order of their first rows.
    """
    parent = np.arange(count, dtype=np.int64)
    shift = max(0, int(np.ceil(np.log2(max(1, count * BYTES_A_KEY / memory_bytes)))))
    for band in range(bands):
        for part in range(1 << shift):
            keys, rows = _in_part(keys_of(band), part, shift)
            order = np.argsort(keys, kind="stable")
            _join(keys[order], rows[order], parent)
    return _grouped(parent)


def _in_part(pieces: Iterator[NDArray[np.uint64]], part: int, shift: int) -> tuple[NDArray[np.uint64], Rows]:
    """Keys whose first `shift` bits are `part`, and their rows."""
    keys, rows, first = [np.empty(0, np.uint64)], [np.empty(0, np.int64)], 0
    for piece in pieces:
        mine = piece != np.uint64(NO_KEY)
        if shift:
            mine &= (piece >> np.uint64(64 - shift)) == part
        keys.append(piece[mine])
        rows.append(np.flatnonzero(mine) + first)
        first += len(piece)
    return np.concatenate(keys), np.concatenate(rows)


@kernel
def _root(parent: Rows, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return row


@kernel
def _join(keys: NDArray[np.uint64], rows: Rows, parent: Rows) -> None:
    """Unites neighbours with equal keys; the smallest row becomes the root."""
    for i in range(1, len(keys)):
        if keys[i] == keys[i - 1]:
            first, second = _root(parent, rows[i - 1]), _root(parent, rows[i])
            if first < second:
                parent[second] = first
            elif second < first:
                parent[first] = second


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
