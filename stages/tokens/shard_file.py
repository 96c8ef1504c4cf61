"""Opening one shard file: its checks, and the offset of its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.store.errors import StoreError
from stages.tokens.table import values_of


@dataclass(frozen=True)
class ShardFormat:
    """The format of all shards of a stream."""

    sequence_length: int
    dtype: np.dtype[Any]

    @property
    def row_bytes(self) -> int:
        return self.sequence_length * self.dtype.itemsize

    @property
    def schema(self) -> pa.Schema:
        item = pa.from_numpy_dtype(self.dtype)
        return pa.schema([pa.field("tokens", pa.list_(item, self.sequence_length))])


@dataclass(frozen=True, eq=False)
class ShardFile:
    """An open shard that agrees with the table of shards."""

    tokens: NDArray[Any]
    """[rows, S], a view of the mapped file."""
    offset: int
    """Offset in the file of the first row; rows are contiguous."""
    size: int
    """Size of the file in bytes."""


def open_shard(path: Path, form: ShardFormat, rows: int, size: int | None = None) -> ShardFile:
    """Opens a shard and checks it against the stream and its table, without reading tokens.

    Args:
        rows: its rows in `shards.parquet`.
        size: its bytes in `shards.parquet`; None: unknown.

    Raises:
        StoreError: it is missing, truncated, or has another format.
    """
    try:
        with pa.memory_map(str(path)) as source:
            found = source.size()
            if size is not None and found != size:
                kind = "truncated" if found < size else "too long"
                raise StoreError(f"tokens: {path} is {kind}: {found} bytes, but `bytes` in shards.parquet is {size}")
            file = pa.ipc.open_file(source)
            _check(path, file.schema, form)
            if file.num_record_batches != 1:
                raise StoreError(f"tokens: {path} has {file.num_record_batches} record batches; a shard has one")
            column = file.get_batch(0).column(0)
            source.seek(0)
            begin = source.read_buffer(1).address
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"tokens: cannot read {path}: {error}") from error
    if len(column) != rows:
        raise StoreError(f"tokens: {path} has {len(column)} rows, but `rows` in shards.parquet is {rows}")
    offset = column.values.buffers()[1].address - begin
    if column.null_count or offset < 0 or offset + rows * form.row_bytes > found:
        raise StoreError(
            f"tokens: {path} is compressed or has nulls; column `tokens` must be uncompressed and without nulls"
        )
    tokens = values_of(column.values)[: rows * form.sequence_length].reshape(rows, form.sequence_length)
    return ShardFile(tokens, offset, found)


def _check(path: Path, schema: pa.Schema, form: ShardFormat) -> None:
    if schema.equals(form.schema, check_metadata=False):
        return
    found = ", ".join(f"{field.name}: {field.type}" for field in schema)
    wanted = form.schema.field(0).type
    raise StoreError(
        f"tokens: {path} has columns ({found}), but `dtype` and `sequence_length` in stream.json need ({wanted})"
    )
