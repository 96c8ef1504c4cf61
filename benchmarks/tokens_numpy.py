"""What plain numpy code does with the rows: the limit that the loader of `benchmarks/tokens.py` is measured against.

An order is a permutation in memory here, made before the time begins: numpy is not made to compute one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
IGNORE = -100


def open_maps(folder: Path) -> list[NDArray[np.uint16]]:
    """The shards of `npy/`, mapped; as plain arrays, which index faster than `np.memmap` does."""
    return [np.load(path, mmap_mode="r").view(np.ndarray) for path in sorted(folder.glob("*.npy"))]


def index_a_file(maps: Sequence[NDArray[Any]], shard: I64, row: I64) -> I64:
    """Rows int64 [n, S] by one fancy index a mapped file."""
    out = np.empty((len(row), maps[0].shape[1]), np.int64)
    for number in np.unique(shard).tolist():
        here = shard == number
        out[here] = maps[number][row[here]]
    return out


def row_by_row(maps: Sequence[NDArray[Any]], shard: I64, row: I64) -> I64:
    """Rows int64 [n, S] copied one by one: fewer calls than `index_a_file` where a file has few of them."""
    out = np.empty((len(row), maps[0].shape[1]), np.int64)
    for line, number, place in zip(out, shard.tolist(), row.tolist(), strict=True):
        line[:] = maps[number][place]
    return out


MEMMAP: dict[str, Callable[[Sequence[NDArray[Any]], I64, I64], I64]] = {
    "numpy memmap, an index a file": index_a_file,
    "numpy memmap, row by row": row_by_row,
}


class Plain(NamedTuple):
    """What a model is given, of n rows of S tokens."""

    inputs: I64
    """[n, S - 1]"""
    labels: I64
    """[n, S - 1], the next token, or IGNORE behind an EOS."""
    positions: I64
    """[n, S - 1], restarting behind an EOS."""
    cu_seqlens: NDArray[np.int32]
    """Where documents begin in the flattened inputs, and their end."""


def plain_batch(array: NDArray[Any], rows: I64, eos_id: int) -> Plain:
    """A whole batch from one array [N, S], by the plainest code."""
    tokens = array[rows].astype(np.int64)
    inputs = tokens[:, :-1]
    ends = inputs == eos_id
    labels = np.where(ends, IGNORE, tokens[:, 1:])
    begins = np.zeros(inputs.shape, bool)
    begins[:, 1:] = ends[:, :-1]
    place = np.arange(inputs.shape[1])
    positions = place - np.maximum.accumulate(np.where(begins, place, 0), axis=1)
    begins[:, 0] = True
    cu_seqlens = np.append(np.flatnonzero(begins), begins.size).astype(np.int32)
    return Plain(inputs, labels, positions, cu_seqlens)
