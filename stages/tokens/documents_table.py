"""Writing the table of a source's documents, and its indexes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.tokens.parts import EncodedStream

DOCUMENTS_PER_BATCH = 1 << 16
"""Rows in each record batch of a table of documents except the last, so that row n is found by division."""

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
"""Returns the local path to write a file of the artifact to."""


def write_documents(stream: EncodedStream, new_file: NewFile, source: str) -> int:
    """Writes the table of a source's documents, and its indexes by `doc_id` and by `uri`.

    An index is a permutation (int64 `.npy`) that sorts the table by that column's bytes.

    Returns:
        The number of documents.
    """
    path = new_file(f"docs/{source}.arrow")
    pending, start, count = DOCUMENTS.empty_table(), 0, 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, DOCUMENTS) as writer:
        for part in stream.parts:
            lines = part.lines()
            lengths = lines["length"].to_numpy()
            starts = start + np.cumsum(lengths + 1) - lengths - 1
            start, count = start + part.count, count + len(lines)
            more = lines.add_column(3, "start", pa.array(starts))
            pending = pa.concat_tables([pending, more])
            if len(pending) >= DOCUMENTS_PER_BATCH:
                whole = len(pending) // DOCUMENTS_PER_BATCH * DOCUMENTS_PER_BATCH
                _write(writer, pending.slice(0, whole))
                pending = pending.slice(whole)
        _write(writer, pending)
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        for column in ("doc_id", "uri"):
            order = pc.sort_indices(table, sort_keys=[(column, "ascending")]).to_numpy().astype(np.int64)
            np.save(new_file(f"index/{source}.{column}.npy"), order)
    return count


def _write(writer: pa.RecordBatchFileWriter, table: pa.Table) -> None:
    for batch in table.combine_chunks().to_batches(max_chunksize=DOCUMENTS_PER_BATCH):
        writer.write_batch(batch)
