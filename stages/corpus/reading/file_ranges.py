"""How the files of a source are shared out: large ones in pieces, small ones together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from stages.corpus.config import SourceConfig
from stages.corpus.reading.listing import ListedFile, Listing
from stages.corpus.reading.records import Piece, format_in

TASK_BYTES, TASK_PIECES = 8 << 20, 1000
"""A task reads so many bytes, about, of so many pieces: enough to pay, few enough to share out."""


@dataclass(frozen=True)
class ReadTask:
    """Pieces of one source's files, in order."""

    source: str
    config: SourceConfig
    listing: Listing
    """Of the task's own files."""
    pieces: tuple[Piece, ...]
    bytes: int


def read_tasks(source: str, config: SourceConfig, listing: Listing) -> list[ReadTask]:
    """Cuts a source into tasks: files in order of name, cut by size alone. Compressed and text files stay whole."""
    tasks: list[ReadTask] = []
    batch: list[tuple[ListedFile, Piece]] = []
    waiting = 0  # bytes

    def close() -> None:
        files = tuple(dict.fromkeys(file for file, _ in batch))
        pieces = tuple(piece for _, piece in batch)
        tasks.append(ReadTask(source, config, Listing(listing.location, files), pieces, waiting))
        batch.clear()

    for file in sorted(listing.files, key=lambda item: item.name):
        for piece, size in _pieces(listing, file, format_in(file.name, config)):
            if batch and (waiting + size > TASK_BYTES or len(batch) >= TASK_PIECES):
                close()
                waiting = 0
            batch.append((file, piece))
            waiting += size
    if batch:
        close()
    return tasks


def _pieces(listing: Listing, file: ListedFile, format: str) -> Iterator[tuple[Piece, int]]:
    """Pieces of a file, and about how many bytes each has."""
    if file.bytes <= TASK_BYTES or file.name.lower().endswith(".gz") or format == "txt":
        yield Piece(file.name), file.bytes
        return
    if format == "parquet":
        yield from _row_groups(listing, file)
        return
    parts = -(-file.bytes // TASK_BYTES)
    cuts = [file.bytes * i // parts for i in range(parts + 1)]
    for start, end in pairwise(cuts):
        yield Piece(file.name, start, end), end - start


def _row_groups(listing: Listing, file: ListedFile) -> Iterator[tuple[Piece, int]]:
    """A piece a row group; the whole file where its footer cannot be read, so that the reader says why."""
    try:
        with listing.open(file.name) as stream, pq.ParquetFile(stream) as opened:
            count = opened.num_row_groups
            sizes = [opened.metadata.row_group(i).total_byte_size for i in range(count)]
    except (pa.ArrowException, OSError):
        count, sizes = 0, []
    if not count:
        yield Piece(file.name), file.bytes
    for i, size in enumerate(sizes):
        yield Piece(file.name, i, i + 1), size


def first_records(tasks: Sequence[ReadTask], seen: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """For each piece of each task how many records of its file lie before it.

    Args:
        seen: how many records (lines, rows) each piece of each task turned out to have.
    """
    before: dict[tuple[str, str], int] = {}
    found = []
    for task, counts in zip(tasks, seen, strict=True):
        first = []
        for piece, count in zip(task.pieces, counts, strict=True):
            key = (task.source, piece.file)
            first.append(before.get(key, 0))
            before[key] = first[-1] + count
        found.append(tuple(first))
    return found
