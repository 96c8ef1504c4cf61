"""Rows of a Parquet file, a few at a time; values that Python cannot represent spoil their own row only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from stages.corpus.reading.fields import list_names, paths_in
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.record import BadRecord, FileRange, Record, RecordCount, too_long
from stages.store import InputError

PARQUET_ROWS, PARQUET_BYTES = 256, 8 << 20
"""Most rows that are held at a time, and about how many bytes; fewer rows where they are large."""

UNREADABLE = (ValueError, OverflowError, LookupError)
"""What pyarrow raises for values that Python cannot represent: broken UTF-8, years beyond 9999, unknown time zones."""


def parquet_rows(
    stream: BinaryIO, file_range: FileRange, columns: Sequence[str] | None, limit: int, count: RecordCount
) -> Iterator[Record]:
    """The rows of a range of row groups, with those of `columns` that the file has; None reads all."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            names = file.schema_arrow.names
            # A batch without columns has no rows either: of a file with none of the columns the first is read.
            wanted = None if columns is None else [name for name in columns if name in names] or names[:1]
            groups = list(range(file.num_row_groups)[file_range.start : file_range.end])
            rows = _rows_at_a_time(file.metadata, groups)
            total = sum(file.metadata.row_group(i).num_rows for i in groups)
            repeated = [name for name in wanted or names if names.count(name) > 1]
            if repeated:  # a row would have the last one's value only
                reason = f"the Parquet file has more than one column {list_names(repeated[:1])!r}"
                yield Record(count.number + 1, BadRecord(reason, rest_lost=True))
                count.number += total
                return
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=wanted):
                for value in _rows(batch):
                    count.number += 1
                    yield Record(count.number, _checked_size(value, limit), columns=names)
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        yield Record(
            count.number + 1, BadRecord(f"the Parquet file cannot be read any further: {reason}", rest_lost=True)
        )
        count.number = max(count.number, total)  # the numbers of later ranges follow


def _rows_at_a_time(metadata: Any, groups: Sequence[int]) -> int:
    found = [metadata.row_group(i) for i in groups]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in found), default=0)
    return max(1, min(PARQUET_ROWS, int(PARQUET_BYTES / max(1, largest))))


def _rows(batch: Any) -> Iterator[dict[str, Any] | BadRecord]:
    """A batch's rows; one by one where a value cannot be represented in Python."""
    try:
        rows = batch.to_pylist()
    except UNREADABLE:
        rows = (_row(batch.slice(i, 1)) for i in range(len(batch)))
    yield from rows


def _row(batch: Any) -> dict[str, Any] | BadRecord:
    """The only row of a batch."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[0].as_py()
        except UnicodeDecodeError as error:  # Parquet files may hold strings that are not UTF-8
            return BadRecord(f"invalid UTF-8: {error.reason} at byte {error.start} of field {list_names([name])}")
        except UNREADABLE as error:
            written = _format_scalar(column[0])
            if written is None:
                return BadRecord(f"field {list_names([name])} cannot be read: {type(error).__name__}: {error}")
            row[name] = written
    return row


def _format_scalar(scalar: Any) -> str | None:
    """A value as Arrow formats it, such as a date beyond the year 9999; None if it cannot either."""
    import pyarrow as pa

    try:
        written = scalar.cast(pa.string()).as_py()
    except pa.ArrowException:
        return None
    return None if written is None or written.startswith("<value out of range") else str(written)


def _checked_size(value: dict[str, Any] | BadRecord, limit: int) -> dict[str, Any] | BadRecord:
    if isinstance(value, BadRecord):
        return value
    texts = [field for _, field in paths_in(value) if isinstance(field, str)]
    if 4 * sum(map(len, texts)) <= limit:
        return value
    size = sum(len(text.encode()) for text in texts)
    return too_long(size, limit) if size > limit else value


def row_group_of(listing: Listing, name: str, number: int) -> tuple[FileRange, int]:
    """The row group with a file's row `number`, and the row's number in it; the last group if there are fewer rows."""
    import pyarrow as pa

    try:
        sizes = _group_rows(listing, name)
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{listing.path(name)} cannot be read: {error}; did the source change?") from error
    group = 0
    while group < len(sizes) - 1 and number > sizes[group]:
        number -= sizes[group]
        group += 1
    return FileRange(name, group, group + 1), number


def spread_row_groups(listing: Listing, name: str, parts: int) -> list[FileRange]:
    """At most `parts` row groups, evenly spread; the whole file where its footer cannot be read, so that the reader
    reports why."""
    import pyarrow as pa

    try:
        groups = len(_group_rows(listing, name))
    except (pa.ArrowException, OSError):
        return [FileRange(name)]
    chosen = sorted({groups * part // parts for part in range(parts)}) if groups else []
    return [FileRange(name, group, group + 1) for group in chosen]


def _group_rows(listing: Listing, name: str) -> list[int]:
    """Number of rows of each row group."""
    import pyarrow.parquet as pq

    with listing.open(name) as stream, pq.ParquetFile(stream) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
