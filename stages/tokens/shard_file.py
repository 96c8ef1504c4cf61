"""One shard file: what it must be, and where in it the tokens begin."""

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
    """What all shards of a stream have in common."""

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
    """A shard that was opened and found to be what the table of shards says."""

    tokens: NDArray[Any]
    """[rows, S], a view of the mapped file."""
    offset: int
    """Byte of the file at which the first row begins; rows follow each other without gaps."""
    size: int
    """Bytes of the file."""


def open_shard(path: Path, form: ShardFormat, rows: int, size: int | None = None) -> ShardFile:
    """Opens a shard and checks it against the stream and its table, without reading tokens.

    Args:
        rows: rows it must have, and
        size: bytes, both by `shards.parquet`; None where that is not known.

    Raises:
        StoreError: it is missing, cut short, or not what it should be.
    """
    try:
        with pa.memory_map(str(path)) as source:
            found = source.size()
            if size is not None and found != size:
                kind = "cut short" if found < size else "too long"
                raise StoreError(f"tokens: {path} is {kind}: {found} bytes, `bytes` in shards.parquet says {size}")
            file = pa.ipc.open_file(source)
            _check(path, file.schema, form)
            if file.num_record_batches != 1:
                raise StoreError(f"tokens: {path} holds {file.num_record_batches} record batches; a shard has one")
            column = file.get_batch(0).column(0)
            source.seek(0)
            begin = source.read_buffer(1).address
    except (OSError, pa.ArrowException) as error:
        raise StoreError(f"tokens: cannot read {path}: {error}") from error
    if len(column) != rows:
        raise StoreError(f"tokens: {path} has {len(column)} rows, `rows` in shards.parquet says {rows}")
    offset = column.values.buffers()[1].address - begin
    if column.null_count or offset < 0 or offset + rows * form.row_bytes > found:
        raise StoreError(f"tokens: {path} is compressed or has empty rows; column `tokens` must be plain")
    tokens = values_of(column.values)[: rows * form.sequence_length].reshape(rows, form.sequence_length)
    return ShardFile(tokens, offset, found)


def _check(path: Path, schema: pa.Schema, form: ShardFormat) -> None:
    if schema.equals(form.schema, check_metadata=False):
        return
    found = ", ".join(f"{field.name}: {field.type}" for field in schema)
    wanted = form.schema.field(0).type
    raise StoreError(
        f"tokens: {path} has columns ({found}); `dtype` and `sequence_length` in stream.json say ({wanted})"
    )
