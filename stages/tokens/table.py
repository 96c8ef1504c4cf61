"""The table of shards: all that an order needs to know about a token stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.store.errors import StoreError

SHARDS = "shards.parquet"

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("number", pa.int32()),
        ("rows", pa.int64()),
        ("tokens", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""Columns of `shards.parquet`. `tokens` counts documents' tokens and their EOS, not the filler of a last row."""


def values_of(array: pa.Array) -> NDArray[Any]:
    """A column of integers without empty ones, as a view: `to_numpy` gives the same but imports pandas first, which
    takes several times as long as all else that a loader waits for."""
    values = np.frombuffer(array.buffers()[1], dtype=str(array.type))
    return values[array.offset : array.offset + len(array)]


@dataclass(frozen=True, eq=False)
class ShardTable:
    """Sources and the rows of each of their shards. A source's index in `sources` is its number everywhere."""

    sources: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    """Per source: int64 [shards], rows in each."""
    tokens: tuple[NDArray[np.int64], ...] = ()
    """Per source: int64 [shards], tokens of documents in each, their EOS counted. Empty in a table made by hand."""
    bytes: tuple[NDArray[np.int64], ...] = ()
    """Per source: int64 [shards], size of each file. Empty in a table made by hand."""

    @classmethod
    def load(cls, folder: Path, part: str = "") -> ShardTable:
        """Reads the table of a tokens artifact (`part="heldout"` for its held-out documents).

        Raises:
            StoreError: there is none, or it misses shards.
        """
        path = folder / part / SHARDS
        columns = ["source", "number", "rows", "tokens", "bytes"]
        try:
            with pq.ParquetFile(path, read_dictionary=["source"]) as file:
                table = file.read(columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"tokens: cannot read {path}: {error}; is {folder} a tokens artifact?") from error
        missing = [name for name in columns if name not in table.column_names or table.column(name).null_count]
        if missing:
            raise StoreError(f"tokens: {path} has no whole column {missing[0]!r}")
        if not table.num_rows:
            return cls((), ())
        source = table.column("source").combine_chunks()
        named = sorted(enumerate(source.dictionary.to_pylist()), key=lambda item: item[1])
        numbers = np.empty(len(named), dtype=np.int64)
        numbers[[number for number, _ in named]] = np.arange(len(named))
        source = numbers[values_of(source.indices)]
        number, *values = (values_of(table.column(name).combine_chunks()).astype(np.int64) for name in columns[1:])
        order = np.lexsort((number, source))
        cuts = np.cumsum(np.bincount(source, minlength=len(named)))[:-1]
        names = tuple(name for _, name in named)
        for name, found in zip(names, np.split(number[order], cuts), strict=True):
            if not np.array_equal(found, np.arange(len(found))):
                missed = int(np.argmax(np.append(found != np.arange(len(found)), True)))
                raise StoreError(f"tokens: {path} misses shard {missed} of source {name!r}, or lists it twice")
        return cls(names, *(tuple(np.split(value[order], cuts)) for value in values))

    def samples(self, k: int = 1) -> NDArray[np.int64]:
        """Samples of k consecutive rows in each source: int64 [sources]. A sample never crosses a shard."""
        return np.array([int((rows // k).sum()) for rows in self.rows], dtype=np.int64)

    def left_out(self, k: int = 1) -> NDArray[np.int64]:
        """Rows in each source that belong to no sample of k rows: int64 [sources]."""
        return np.array([int((rows % k).sum()) for rows in self.rows], dtype=np.int64)

    def index(self, source: str) -> int:
        """The number of a source.

        Raises:
            KeyError: no such source.
        """
        try:
            return self.sources.index(source)
        except ValueError:
            raise KeyError(f"no source {source!r}; there are {', '.join(self.sources) or 'none'}") from None
