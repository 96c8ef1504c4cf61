"""The chunks of a corpus in order, and documents by their row number over all chunks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.corpus.tables import PLACES, read_chunk

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Chunk:
    """Documents of one source that are processed together, in corpus order."""

    name: str
    source: str
    documents: int
    first_records: tuple[int, ...]
    """For each range of its task, how many records of the file come before it."""

    def uris(self, table: pa.Table) -> pa.Array:
        """`file#record`, or `file#record:span`, of each row; needs the columns file, file_range, record, span."""
        first = np.array(self.first_records, np.int64)[table["file_range"].to_numpy()]
        records = pa.array(table["record"].to_numpy() + first).cast(pa.string())
        spans = table["span"].combine_chunks()
        spans = pc.if_else(pc.equal(spans, ""), "", pc.binary_join_element_wise("", spans, ":"))
        files = pc.binary_join_element_wise(table["file"].combine_chunks(), records, "#")
        return pc.binary_join_element_wise(files, spans, "")


def row_offsets(chunks: Sequence[Chunk]) -> Rows:
    """Row of each chunk's first document among all documents, and their number: int64[chunks + 1]."""
    return np.cumsum([0, *(chunk.documents for chunk in chunks)], dtype=np.int64)


def by_chunk(rows: Rows, base: Rows) -> Iterator[tuple[int, slice]]:
    """For ascending rows, the number of each chunk that has some of them, and the slice of `rows` in it."""
    places = np.searchsorted(rows, base)
    for number in np.flatnonzero(np.diff(places)).tolist():
        yield number, slice(int(places[number]), int(places[number + 1]))


def group_adjacent(sizes: Sequence[int], limit: int, kinds: Sequence[object]) -> list[list[int]]:
    """Groups of adjacent numbers of one kind whose sizes sum up to at most `limit`; a larger one is a group alone."""
    groups: list[list[int]] = []
    held = 0
    for number, size in enumerate(sizes):
        if not groups or held + size > limit or kinds[groups[-1][0]] != kinds[number]:
            groups.append([])
            held = 0
        groups[-1].append(number)
        held += size
    return groups


def identities(rows: Rows, chunks: Sequence[Chunk], folder: Path) -> pa.Table:
    """Identities of the documents at ascending rows: columns doc_id and `where` (`source/file#record`)."""
    parts = []
    base = row_offsets(chunks)
    for number, mine in by_chunk(rows, base):
        chunk = chunks[number]
        table = read_chunk(folder / chunk.name, PLACES)
        table = table.take(rows[mine] - base[number])
        where = pc.binary_join_element_wise(pa.scalar(chunk.source), chunk.uris(table), "/")
        parts.append(pa.table({"doc_id": table["doc_id"], "where": where}))
    empty = pa.table({"doc_id": pa.array([], pa.string()), "where": pa.array([], pa.string())})
    return pa.concat_tables(parts) if parts else empty


def lists_of(column: pa.ChunkedArray) -> tuple[NDArray[np.uint64], Rows]:
    """A column of lists of uint64 as values, uint64[k], and the offsets of the lists, int64[n + 1]."""
    lists = column.combine_chunks()
    if not len(lists):
        return np.empty(0, np.uint64), np.zeros(1, np.int64)
    starts = lists.offsets.to_numpy().astype(np.int64)
    return lists.values.to_numpy()[starts[0] : starts[-1]], starts - starts[0]
