"""Exact copies over the whole corpus: of documents with equal hashes the first in corpus order stays."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
BYTES_A_HASH = 64
"""What a hash costs while hashes are sorted: its halves, its row, the order, and copies of them."""


def first_copies(count: int, hashes: Callable[[], Iterator[NDArray[np.uint64]]], memory_bytes: int) -> Rows:
    """For each document the row of its first copy, -1 for one that is the first; int64[count].

    Holds 8 bytes a document, and of hashes as many at a time as `memory_bytes` allow.

    Args:
        hashes: 128-bit hashes, uint64[count, 2] all together, in pieces; a zero hash takes no part.
    """
    survivor = np.full(count, -1, np.int64)
    rounds = rounds_for(count * BYTES_A_HASH, memory_bytes)
    for part in range(rounds):
        found, rows, first = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)], 0
        for piece in hashes():
            mine = piece.any(axis=1) & (piece[:, 0] % np.uint64(rounds) == part)
            found.append(piece[mine])
            rows.append(np.flatnonzero(mine) + first)
            first += len(piece)
        keys, places = np.concatenate(found), np.concatenate(rows)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        keys, places = keys[order], places[order]
        begins = np.ones(len(keys), bool)
        begins[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        first_of_run = places[np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))] if len(keys) else places
        survivor[places[~begins]] = first_of_run[~begins]
    return survivor


def repeats(values: Callable[[], Iterator[NDArray[np.uint64]]], count: int, memory_bytes: int) -> int:
    """How many of `count` values stood before among them."""
    again, rounds = 0, rounds_for(count * BYTES_A_HASH // 2, memory_bytes)
    for part in range(rounds):
        mine = [piece[piece % np.uint64(rounds) == part] for piece in values()]
        joined = np.concatenate(mine) if mine else np.empty(0, np.uint64)
        again += len(joined) - len(np.unique(joined))
    return again


def rounds_for(total_bytes: int, memory_bytes: int) -> int:
    """In how many rounds something is done that would hold `total_bytes` in one."""
    return max(1, -(-total_bytes // memory_bytes))
