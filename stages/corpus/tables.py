"""Schemas of the Parquet files that the stage writes, and a writer that cuts rows into files of fixed size."""

from __future__ import annotations

from collections.abc import Callable
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

PLACE = [("doc_id", pa.string()), ("file", pa.string()), ("record", pa.int64())]
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
        ("record_id", pa.uint64()),
        ("bytes", pa.int64()),
        ("personal", pa.string()),
        *VERDICT,
    ]
)
"""What the first pass leaves: every readable document, with the policy's verdict."""

JUDGED = pa.schema(
    [
        *PLACE,
        ("text", pa.string()),
        ("text_hash", pa.string()),
        ("license", pa.string()),
        ("retrieved_at", pa.string()),
        ("language", pa.string()),
        ("group", pa.string()),
        ("subject", pa.string()),
        ("score", pa.float64()),
        ("steps", pa.list_(pa.string())),
        ("characters", pa.int64()),
        ("signature", pa.binary()),
        ("shingles", pa.binary()),
        *VERDICT,
    ]
)
"""What the second pass leaves: every document that policy and exact deduplication let through, with its verdict."""

ROWS_PER_GROUP = 4096
ROWS_PER_FILE = 65_536


class RowFiles:
    """Writes rows into numbered Parquet files. Where rows are cut depends on their number alone."""

    def __init__(self, schema: pa.Schema, path_of: Callable[[int], Path]):
        self._schema, self._path_of = schema, path_of
        self._rows: list[dict[str, object]] = []
        self._file: pq.ParquetWriter | None = None
        self._in_file = 0
        self.files = 0

    def add(self, row: dict[str, object]) -> None:
        """Adds one row."""
        self._rows.append(row)
        if len(self._rows) == ROWS_PER_GROUP:
            self._flush()

    def close(self) -> None:
        """Writes what is left; without rows there is no file."""
        if self._rows:
            self._flush()
        if self._file:
            self._file.close()
            self._file = None

    def _flush(self) -> None:
        if self._file is None:
            self._file = pq.ParquetWriter(self._path_of(self.files), self._schema, compression="zstd")
            self.files, self._in_file = self.files + 1, 0
        self._file.write_table(pa.Table.from_pylist(self._rows, schema=self._schema))
        self._in_file += len(self._rows)
        self._rows = []
        if self._in_file >= ROWS_PER_FILE:
            self._file.close()
            self._file = None
