"""Exact copies over the whole corpus: of documents with equal hashes the first in corpus order is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

Rows = NDArray[np.int64]
BYTES_PER_HASH = 64
"""Memory for each hash while hashes are sorted: its halves, its row, the order, and copies of them."""


def first_copies(count: int, hashes: Callable[[], Iterator[NDArray[np.uint64]]], memory_bytes: int) -> Rows:
    """For each document the row of its first copy, -1 for one that is the first; int64[count].

    Holds 8 bytes for each document, and as many hashes at a time as `memory_bytes` allows.

    Args:
        hashes: 128-bit hashes, uint64[count, 2] in total, in batches; a zero hash is ignored.
    """
    survivor = np.full(count, -1, np.int64)
    rounds = rounds_for(count * BYTES_PER_HASH, memory_bytes)
    for part in range(rounds):
        found, rows, first = [np.empty((0, 2), np.uint64)], [np.empty(0, np.int64)], 0
        for batch in hashes():
            mine = batch.any(axis=1) & (batch[:, 0] % np.uint64(rounds) == part)
            found.append(batch[mine])
            rows.append(np.flatnonzero(mine) + first)
            first += len(batch)
        keys, places = np.concatenate(found), np.concatenate(rows)
        order = np.lexsort((keys[:, 1], keys[:, 0]))
        keys, places = keys[order], places[order]
        begins = np.ones(len(keys), bool)
        begins[1:] = (keys[1:] != keys[:-1]).any(axis=1)
        first_of_run = places[np.maximum.accumulate(np.where(begins, np.arange(len(keys)), 0))] if len(keys) else places
        survivor[places[~begins]] = first_of_run[~begins]
    return survivor


def count_repeats(values: Callable[[], Iterator[NDArray[np.uint64]]], count: int, memory_bytes: int) -> int:
    """How many of `count` values repeat an earlier one."""
    again, rounds = 0, rounds_for(count * BYTES_PER_HASH // 2, memory_bytes)
    for part in range(rounds):
        mine = [batch[batch % np.uint64(rounds) == part] for batch in values()]
        joined = np.concatenate(mine) if mine else np.empty(0, np.uint64)
        again += len(joined) - len(np.unique(joined))
    return again


def rounds_for(total_bytes: int, memory_bytes: int) -> int:
    """Number of rounds for work that would hold `total_bytes` in a single one."""
    return max(1, -(-total_bytes // memory_bytes))
