"""The table of shards: everything an order needs to know about a token stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.store.errors import StoreError
from stages.store.names import check_file_name

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
"""Columns of `shards.parquet`. `tokens` counts documents' tokens and their EOS, not the padding of a last row."""


def values_of(array: pa.Array) -> NDArray[Any]:
    """A column of integers without nulls, as a view. `to_numpy` returns the same but imports pandas first, which takes
    several times as long as the rest of a loader's start."""
    values = np.frombuffer(array.buffers()[1], dtype=str(array.type))
    return values[array.offset : array.offset + len(array)]


@dataclass(frozen=True, eq=False)
class ShardTable:
    """Sources and the rows of each of their shards. Elsewhere a source is identified by its index in `sources`."""

    sources: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    """Per source: int64 [shards], rows in each."""
    tokens: tuple[NDArray[np.int64], ...] = ()
    """Per source: int64 [shards], tokens of documents in each, including EOS. Empty if not loaded from a file."""
    bytes: tuple[NDArray[np.int64], ...] = ()
    """Per source: int64 [shards], size of each file. Empty if not loaded from a file."""

    @classmethod
    def load(cls, folder: Path, split: str = "") -> ShardTable:
        """Reads the table of a tokens artifact (`split="heldout"` for its held-out documents).

        Raises:
            StoreError: the table cannot be read, or lacks shards.
        """
        path = folder / split / SHARDS
        columns = ["source", "number", "rows", "tokens", "bytes"]
        try:
            with pq.ParquetFile(path, read_dictionary=["source"]) as file:
                table = file.read(columns=columns)
        except (OSError, pa.ArrowException) as error:
            raise StoreError(f"tokens: cannot read {path}: {error}; is {folder} a tokens artifact?") from error
        missing = [name for name in columns if name not in table.column_names or table.column(name).null_count]
        if missing:
            raise StoreError(f"tokens: {path}: column {missing[0]!r} is missing or has nulls")
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
        try:
            for name in names:
                check_file_name(name)  # files are looked for below it
        except ValueError as error:
            raise StoreError(f"tokens: {path}: a source has an invalid name: {error}") from error
        for name, found in zip(names, np.split(number[order], cuts), strict=True):
            if not np.array_equal(found, np.arange(len(found))):
                missing_shard = int(np.argmax(np.append(found != np.arange(len(found)), True)))
                raise StoreError(f"tokens: {path}: shard {missing_shard} of source {name!r} is missing or listed twice")
        return cls(names, *(tuple(np.split(value[order], cuts)) for value in values))

    def samples(self, rows_per_sample: int = 1) -> NDArray[np.int64]:
        """Samples of that many consecutive rows in each source: int64 [sources]. A sample never crosses a shard."""
        return np.array([int((rows // rows_per_sample).sum()) for rows in self.rows], dtype=np.int64)

    def left_out(self, rows_per_sample: int = 1) -> NDArray[np.int64]:
        """Rows in each source that belong to no sample of that many rows: int64 [sources]."""
        return np.array([int((rows % rows_per_sample).sum()) for rows in self.rows], dtype=np.int64)
