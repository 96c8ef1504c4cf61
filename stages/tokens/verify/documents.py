"""Checks of a source's table of documents and its indexes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.tokens.documents_table import DOCUMENTS
from stages.tokens.verify.finding import Finding

I64 = NDArray[np.int64]

_BLOCK = 1 << 18
"""Rows of an index that are checked together."""


@dataclass(frozen=True, eq=False)
class DocumentTable:
    """A mapped table of documents."""

    file: str
    batches: tuple[pa.RecordBatch, ...]

    @cached_property
    def count(self) -> int:
        """Documents."""
        return sum(batch.num_rows for batch in self.batches)

    @cached_property
    def size(self) -> int:
        """Rows in each batch except the last."""
        return self.batches[0].num_rows if self.batches else 1

    @cached_property
    def _first_starts(self) -> I64:
        return np.array([batch.column("start")[0].as_py() for batch in self.batches], dtype=np.int64)

    def ends(self, low: int, high: int) -> I64:
        """Positions in the stream, from `low` to `high - 1`, of the documents' EOS, ascending."""
        first = max(0, int(np.searchsorted(self._first_starts, low, side="right")) - 1)
        last = int(np.searchsorted(self._first_starts, high, side="left"))
        found = [_numbers(batch, "start") + _numbers(batch, "length") for batch in self.batches[first:last]]
        ends = np.concatenate(found) if found else np.zeros(0, np.int64)
        return ends[np.searchsorted(ends, low) : np.searchsorted(ends, high)]

    def at(self, token: int) -> str:
        """Describes the document that a token of the stream belongs to."""
        index = max(0, int(np.searchsorted(self._first_starts, token, side="right")) - 1)
        line = max(0, int(np.searchsorted(_numbers(self.batches[index], "start"), token, side="right")) - 1)
        return f"document {index * self.size + line} ({self.batches[index].column('doc_id')[line].as_py()})"

    def take(self, column: str, documents: I64) -> pa.Array:
        """Values of a column for some documents, in the order given."""
        index, line = np.divmod(documents, self.size)
        order = np.argsort(index, kind="stable")
        used, first = np.unique(index[order], return_index=True)
        parts = [
            self.batches[number].column(column).take(pa.array(lines))
            for number, lines in zip(used.tolist(), np.split(line[order], first[1:]), strict=True)
        ]
        back = np.empty_like(order)
        back[order] = np.arange(len(order))
        return pa.concat_arrays(parts).take(pa.array(back))


def read_documents(folder: Path, split: str, source: str, tokens: int) -> tuple[DocumentTable | None, list[Finding]]:
    """A source's table, checked for consistency and against the number of tokens in its shards.

    Returns:
        The table (None if it cannot be read), and its errors.
    """
    file = f"{split}docs/{source}.arrow"
    try:
        opened = pa.ipc.open_file(pa.memory_map(str(folder / file)))
        batches = tuple(opened.get_batch(index) for index in range(opened.num_record_batches))
        for batch in batches:
            batch.validate(full=True)
    except (OSError, pa.ArrowException) as error:
        return None, [Finding(file, "content", f"cannot be read: {error}")]
    if opened.schema != DOCUMENTS:
        return None, [Finding(file, "columns", f"are {', '.join(map(str, opened.schema))}")]
    for number, batch in enumerate(batches):
        missing = [name for name in DOCUMENTS.names if batch.column(name).null_count]
        if missing:
            return None, [Finding(file, missing[0], "has nulls")]
        if not batch.num_rows or (number and batches[number - 1].num_rows != batches[0].num_rows):
            return None, [Finding(file, "content", "the record batches differ in length, so rows cannot be located")]
    table = DocumentTable(file, batches)
    return table, list(_check_places(table, tokens))


def _check_places(table: DocumentTable, tokens: int) -> Iterator[Finding]:
    """Checks that documents are contiguous, and end where the source's tokens end."""
    at = 0
    for batch, first in zip(table.batches, range(0, table.count, table.size), strict=True):
        start, length = _numbers(batch, "start"), _numbers(batch, "length")
        for name in ("length", "bytes"):
            negative = np.flatnonzero(_numbers(batch, name) < 0)
            if negative.size:
                yield Finding(table.file, name, f"is negative in document {first + negative[0]}")
                return
        expected = np.concatenate([[at], start[:-1] + length[:-1] + 1])
        wrong = np.flatnonzero(start != expected)
        if wrong.size:
            line = int(wrong[0])
            yield Finding(
                table.file,
                "start",
                f"document {first + line} begins at token {start[line]:,}, but the document before it ends at "
                f"{expected[line]:,}",
            )
            return
        at = int(start[-1] + length[-1] + 1)
    if at != tokens:
        yield Finding(
            table.file, "length", f"documents and their EOS are {at:,} tokens, but the shards have {tokens:,}"
        )


def check_index(folder: Path, file: str, table: DocumentTable, column: str) -> Iterator[Finding]:
    """Checks that an index is a permutation of the documents, sorted by the column's bytes."""
    try:
        index = np.load(folder / file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        yield Finding(file, "content", f"cannot be read: {error}")
        return
    if index.shape != (table.count,) or index.dtype != np.int64:
        yield Finding(file, "shape", f"is {index.dtype} {list(index.shape)}, but the table has {table.count} documents")
        return
    seen = np.zeros(table.count, dtype=bool)
    for low in range(0, table.count, _BLOCK):
        block = np.asarray(index[low : low + _BLOCK])
        outside = (block < 0) | (block >= table.count)
        if outside.any():
            yield Finding(file, column, f"refers to document {block[outside][0]}, but the table has {table.count}")
            return
        seen[block] = True
    if not seen.all():
        yield Finding(file, column, f"lacks document {int(np.argmin(seen))}, and has another one twice")
        return
    for low in range(0, table.count - 1, _BLOCK):
        values = table.take(column, np.asarray(index[low : low + _BLOCK + 1]))
        descending = pc.greater(values.slice(0, len(values) - 1), values.slice(1)).to_numpy(zero_copy_only=False)
        if descending.any():
            place = low + int(np.argmax(descending))
            yield Finding(file, column, f"is not sorted: rows {place} and {place + 1} are in the wrong order")
            return


def _numbers(batch: pa.RecordBatch, name: str) -> I64:
    return batch.column(name).to_numpy(zero_copy_only=True)
