"""How the files of a source become tasks: large files are cut into ranges, small ones are read together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from stages.corpus.config import SourceConfig
from stages.corpus.reading.listing import ListedFile, Listing
from stages.corpus.reading.parquet import DamagedParquet, open_parquet
from stages.corpus.reading.record import FileRange
from stages.corpus.reading.records import format_in

TASK_BYTES, TASK_RANGES = 8 << 20, 1000
"""Most bytes and ranges of a task: enough to be worth its overhead, few enough for workers to be equally busy."""


@dataclass(frozen=True)
class ReadTask:
    """Ranges of one source's files, in order, that one task reads."""

    source: str
    config: SourceConfig
    listing: Listing
    """Of the task's own files."""
    ranges: tuple[FileRange, ...]
    bytes: int


def read_tasks(source: str, config: SourceConfig, listing: Listing) -> list[ReadTask]:
    """Cuts a source into tasks: files in order of name, cut by size alone. Compressed and text files stay whole."""
    tasks: list[ReadTask] = []
    batch: list[tuple[ListedFile, FileRange]] = []
    waiting = 0  # bytes

    def close() -> None:
        files = tuple(dict.fromkeys(file for file, _ in batch))
        ranges = tuple(file_range for _, file_range in batch)
        tasks.append(ReadTask(source, config, Listing(listing.location, files), ranges, waiting))
        batch.clear()

    for file in sorted(listing.files, key=lambda item: item.name):
        for file_range, size in _ranges_of(listing, file, format_in(file.name, config)):
            if batch and (waiting + size > TASK_BYTES or len(batch) >= TASK_RANGES):
                close()
                waiting = 0
            batch.append((file, file_range))
            waiting += size
    if batch:
        close()
    return tasks


def _ranges_of(listing: Listing, file: ListedFile, format: str) -> Iterator[tuple[FileRange, int]]:
    """Ranges of a file, and their approximate sizes in bytes."""
    if file.bytes <= TASK_BYTES or file.name.lower().endswith(".gz") or format == "txt":
        yield FileRange(file.name), file.bytes
        return
    if format == "parquet":
        yield from _row_groups(listing, file)
        return
    parts = -(-file.bytes // TASK_BYTES)
    cuts = [file.bytes * i // parts for i in range(parts + 1)]
    for start, end in pairwise(cuts):
        yield FileRange(file.name, start, end), end - start


def _row_groups(listing: Listing, file: ListedFile) -> Iterator[tuple[FileRange, int]]:
    """A range for each row group; the whole file where its footer cannot be read, so that the reader reports why."""
    try:
        with listing.open(file.name) as stream, open_parquet(stream) as opened:
            count = opened.num_row_groups
            sizes = [opened.metadata.row_group(i).total_byte_size for i in range(count)]
    except DamagedParquet:
        count, sizes = 0, []
    if not count:
        yield FileRange(file.name), file.bytes
    for i, size in enumerate(sizes):
        yield FileRange(file.name, i, i + 1), size


def first_records(tasks: Sequence[ReadTask], record_counts: Sequence[Sequence[int]]) -> list[tuple[int, ...]]:
    """For each range of each task, how many records of its file come before it.

    Args:
        record_counts: how many records (lines, rows) each range of each task turned out to have.
    """
    before: dict[tuple[str, str], int] = {}
    found = []
    for task, counts in zip(tasks, record_counts, strict=True):
        first = []
        for file_range, count in zip(task.ranges, counts, strict=True):
            key = (task.source, file_range.file)
            first.append(before.get(key, 0))
            before[key] = first[-1] + count
        found.append(tuple(first))
    return found
