"""Plain numpy code for the same work, which `benchmarks/tokens.py` compares the loader with.

Its order is a permutation in memory, computed before the measurement.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

I64 = NDArray[np.int64]
IGNORE_INDEX = -100


def open_maps(folder: Path) -> list[NDArray[np.uint16]]:
    """The shards of `npy/`, mapped; as plain arrays, which index faster than `np.memmap` does."""
    return [np.load(path, mmap_mode="r").view(np.ndarray) for path in sorted(folder.glob("*.npy"))]


def index_a_file(maps: Sequence[NDArray[Any]], shard: I64, row: I64) -> I64:
    """Rows int64 [n, S], by one fancy index per mapped file."""
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


class PlainBatch(NamedTuple):
    """Inputs and targets of n rows of S tokens, each [n, S - 1] in C order."""

    inputs: I64
    targets: I64
    """The next token, or IGNORE_INDEX after an EOS."""


def plain_batch(array: NDArray[Any], rows: I64, eos_id: int) -> PlainBatch:
    """A whole batch from one array [N, S], by the simplest code."""
    tokens = array[rows].astype(np.int64)
    inputs = np.ascontiguousarray(tokens[:, :-1])
    return PlainBatch(inputs, np.where(inputs == eos_id, IGNORE_INDEX, tokens[:, 1:]))
