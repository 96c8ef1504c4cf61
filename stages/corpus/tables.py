"""Schemas of the files that the stage writes, and how chunks between the passes are read and written.

Between the passes documents are in chunks: Arrow IPC files that are memory-mapped, so that a step loads only the
columns that it uses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCORES = pa.struct([("language", pa.float64())])
DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("text", pa.string()),
        ("text_hash", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("license", pa.string()),
        ("retrieved_at", pa.string()),
        ("language", pa.string()),
        ("group", pa.string()),
        ("scores", SCORES),
        ("steps", pa.list_(pa.string())),
    ]
)
"""The documents of the artifact, training and held out."""

VERDICT = [("rule", pa.string()), ("value", pa.float64()), ("threshold", pa.float64()), ("detail", pa.string())]
REMOVED = pa.schema(
    [("doc_id", pa.string()), ("uri", pa.string()), ("source", pa.string()), *VERDICT, ("survivor", pa.string())]
)
"""The ledger; key is (doc_id, source, uri). No text."""

PLACE = [
    ("doc_id", pa.string()),
    ("file", pa.string()),
    ("file_range", pa.int32()),
    ("record", pa.int64()),
    ("span", pa.string()),
]
"""Where a document comes from: `record` counts within a range of its file, see `Chunk.uris`."""

PLACES = [name for name, _ in PLACE]

READ = pa.schema(
    [
        *PLACE,
        ("text", pa.string()),
        ("license", pa.string()),
        ("retrieved_at", pa.string()),
        ("group", pa.string()),
        ("subject", pa.string()),
        ("steps", pa.list_(pa.string())),
        ("exact", pa.binary(16)),
        ("edges", pa.list_(pa.uint64())),
        ("group_hash", pa.uint64()),
        ("record_id", pa.uint64()),
        ("bytes", pa.int64()),
        ("personal", pa.string()),
        *VERDICT,
    ]
)
"""Output of the first pass: every readable document, with the policy's verdict."""

JUDGED = pa.schema(
    [
        *PLACE,
        ("text", pa.string()),
        ("license", pa.string()),
        ("retrieved_at", pa.string()),
        ("language", pa.string()),
        ("group", pa.string()),
        ("subject", pa.string()),
        ("score", pa.float64()),
        ("steps", pa.list_(pa.string())),
        ("characters", pa.int64()),
        *VERDICT,
    ]
)
"""Output of the second pass: every document that policy and exact deduplication keep, with its verdict."""

ROWS_PER_GROUP = 4096
ROWS_PER_FILE = 65_536


def write_chunk(table: pa.Table, path: Path) -> None:
    """Writes a chunk as one record batch, uncompressed."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table.combine_chunks(), max_chunksize=max(1, len(table)))


def read_chunk(path: Path, columns: Iterable[str] | None = None) -> pa.Table:
    """A chunk's columns, memory-mapped."""
    with pa.memory_map(str(path)) as source:
        table = pa.ipc.open_file(source).read_all()
    return table if columns is None else table.select(list(columns))


class RowFiles:
    """Writes tables into numbered Parquet files. Where files and row groups end depends on the row number alone."""

    def __init__(self, schema: pa.Schema, path_of: Callable[[int], Path]):
        self._schema, self._path_of = schema, path_of
        self._pending: list[pa.Table] = []
        self._rows = 0
        self._file: pq.ParquetWriter | None = None
        self._rows_in_file = 0
        self.files = 0

    def add(self, table: pa.Table) -> None:
        """Adds rows."""
        self._pending.append(table.select(self._schema.names).cast(self._schema))
        self._rows += len(table)
        if self._rows >= ROWS_PER_GROUP:
            joined = pa.concat_tables(self._pending)
            whole = self._rows - self._rows % ROWS_PER_GROUP
            for start in range(0, whole, ROWS_PER_GROUP):
                self._flush(joined.slice(start, ROWS_PER_GROUP))
            self._pending, self._rows = [joined.slice(whole)], self._rows - whole

    def close(self) -> None:
        """Writes the remaining rows; without rows no file is created."""
        if self._rows:
            self._flush(pa.concat_tables(self._pending))
            self._pending, self._rows = [], 0
        if self._file:
            self._file.close()
            self._file = None

    def _flush(self, table: pa.Table) -> None:
        if self._file is None:
            self._file = pq.ParquetWriter(self._path_of(self.files), self._schema, compression="zstd")
            self.files, self._rows_in_file = self.files + 1, 0
        self._file.write_table(table)
        self._rows_in_file += len(table)
        if self._rows_in_file >= ROWS_PER_FILE:
            self._file.close()
            self._file = None
