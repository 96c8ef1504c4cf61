"""Writing one source's token stream: shards, the table of its documents and that table's indexes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.artifact.artifact import sha256_file

DOCUMENTS_A_BATCH = 1 << 16
"""Lines in each record batch of a table of documents but the last, so that line n is found by division."""

DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("uri", pa.string()),
        ("license", pa.string()),
        ("start", pa.int64()),
        ("length", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""Columns of `docs/<source>.arrow`, in stream order: first token in the stream, tokens without EOS, bytes of text."""

NewFile = Callable[[str], Path]
"""Gives the local path to write a file of the artifact to."""


class ShardWriter:
    """Cuts a stream of tokens into rows and shards.

    Args:
        new_file: gives the path of each file.
        source: name of the source.
        sequence_length: S.
        shard_rows: rows a shard.
        dtype: uint16 or uint32.
        fill: token that fills the last row (EOS).
    """

    def __init__(
        self, new_file: NewFile, source: str, sequence_length: int, shard_rows: int, dtype: np.dtype[Any], fill: int
    ):
        self.new_file, self.source, self.fill = new_file, source, fill
        self.sequence_length, self.shard_rows = sequence_length, shard_rows
        self.buffer = np.empty(shard_rows * sequence_length, dtype=dtype)
        self.used = 0
        self.tokens = 0
        self.lines: list[dict[str, Any]] = []
        """Lines for `shards.parquet`."""

    @property
    def rows(self) -> int:
        """Rows in finished shards."""
        return sum(line["rows"] for line in self.lines)

    def add(self, tokens: NDArray[Any]) -> None:
        """Goes on with the stream."""
        self.tokens += len(tokens)
        while len(tokens):
            part = tokens[: len(self.buffer) - self.used]
            self.buffer[self.used : self.used + len(part)] = part
            self.used += len(part)
            tokens = tokens[len(part) :]
            if self.used == len(self.buffer):
                self._write()

    def close(self) -> None:
        """Fills the last row and writes the last shard."""
        if self.used:
            self._write()

    def _write(self) -> None:
        rows = -(-self.used // self.sequence_length)
        whole = rows * self.sequence_length
        self.buffer[self.used : whole] = self.fill
        column = pa.FixedSizeListArray.from_arrays(pa.array(self.buffer[:whole]), self.sequence_length)
        batch = pa.record_batch([column], names=["tokens"])
        number = len(self.lines)
        path = self.new_file(f"shards/{self.source}/{number:05}.arrow")
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
            writer.write_batch(batch)
        self.lines.append(
            {
                "source": self.source,
                "number": number,
                "rows": rows,
                "tokens": self.used,
                "bytes": path.stat().st_size,
                "sha256": sha256_file(path),
            }
        )
        self.used = 0


class DocumentWriter:
    """Writes the table of a source's documents, and at the end its indexes by `doc_id` and by `uri`.

    An index is a permutation (int64 `.npy`) that sorts the table by that column's bytes.
    """

    def __init__(self, new_file: NewFile, source: str):
        self.new_file, self.source = new_file, source
        self.path = new_file(f"docs/{source}.arrow")
        self.sink = pa.OSFile(str(self.path), "wb")
        self.writer = pa.ipc.new_file(self.sink, DOCUMENTS)
        self.waiting: list[pa.RecordBatch] = []
        self.waiting_lines = 0
        self.count = 0
        self.next_start = 0

    def add(self, texts: Sequence[pa.Array], lengths: NDArray[np.int64], sizes: NDArray[np.int64]) -> None:
        """Adds documents.

        Args:
            texts: columns doc_id, uri, license.
            lengths: tokens of each, without EOS.
            sizes: bytes of each text.
        """
        ends = self.next_start + np.cumsum(lengths + 1)
        columns = [*(text.cast(pa.string()) for text in texts), pa.array(ends - lengths - 1)]
        batch = pa.record_batch([*columns, pa.array(lengths), pa.array(sizes)], schema=DOCUMENTS)
        self.count += len(lengths)
        self.next_start = int(ends[-1]) if len(ends) else self.next_start
        self.waiting.append(batch)
        self.waiting_lines += len(lengths)
        if self.waiting_lines >= DOCUMENTS_A_BATCH:
            self._write(last=False)

    def close(self) -> None:
        """Writes what waits, ends the file and writes its indexes."""
        self._write(last=True)
        self.writer.close()
        self.sink.close()
        table = pa.ipc.open_file(pa.memory_map(str(self.path))).read_all()
        for column in ("doc_id", "uri"):
            order = pc.sort_indices(table, sort_keys=[(column, "ascending")]).to_numpy().astype(np.int64)
            np.save(self.new_file(f"index/{self.source}.{column}.npy"), order)

    def _write(self, *, last: bool) -> None:
        if not self.waiting_lines:
            return
        table = pa.Table.from_batches(self.waiting).combine_chunks()
        whole = table.num_rows if last else table.num_rows // DOCUMENTS_A_BATCH * DOCUMENTS_A_BATCH
        for batch in table.slice(0, whole).to_batches(max_chunksize=DOCUMENTS_A_BATCH):
            self.writer.write_batch(batch)
        self.waiting = table.slice(whole).to_batches()
        self.waiting_lines = table.num_rows - whole
