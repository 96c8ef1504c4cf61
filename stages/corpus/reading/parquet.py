"""Rows of a Parquet file, a few at a time; values that Python cannot represent spoil their own row only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO

from stages.corpus.reading.fields import list_names, paths_in
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.record import BadRecord, FileRange, Record, RecordCount, Unreadable, too_long
from stages.store import InputError

if TYPE_CHECKING:
    import pyarrow.parquet as pq

PARQUET_ROWS, PARQUET_BYTES = 256, 8 << 20
"""Most rows that are held at a time, and about how many bytes; fewer rows where they are large."""

UNREADABLE = (ValueError, OverflowError, LookupError)
"""What pyarrow raises for values that Python cannot represent: broken UTF-8, years beyond 9999, unknown time zones."""


class DamagedParquet(ValueError):
    """A file that cannot be read as Parquet; says why in one line."""


def parquet_rows(
    stream: BinaryIO, file_range: FileRange, columns: Sequence[str] | None, limit: int, count: RecordCount
) -> Iterator[Record]:
    """The rows of a range of row groups, with those of `columns` that the file has.

    None reads all columns, with an `Unreadable` for each value that cannot be read; a chosen column with one spoils the
    row.
    """
    total = 0
    try:
        with open_parquet(stream) as file:
            names = file.schema_arrow.names
            repeated = {name for name, times in Counter(names).items() if times > 1}
            # A batch without columns has no rows either: of a file with none of the columns the first is read.
            wanted = names if columns is None else [name for name in columns if name in names] or names[:1]
            single = [name for name in wanted if name not in repeated]
            groups = list(range(file.num_row_groups)[file_range.start : file_range.end])
            rows = _rows_at_a_time(file.metadata, groups)
            total = sum(file.metadata.row_group(i).num_rows for i in groups)
            spoilt = {
                name: Unreadable(f"the Parquet file has more than one column {list_names([name])!r}")
                for name in wanted
                if name in repeated  # a row would have the last one's value only
            }
            if spoilt and (columns is not None or not single):
                reason = next(iter(spoilt.values())).reason
                yield Record(count.number + 1, BadRecord(reason, rest_lost=True))
                count.number += total
                return
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=single):
                for row in _rows(batch):
                    count.number += 1
                    value = row | spoilt if columns is None else _readable(row)
                    yield Record(count.number, _checked_size(value, limit), columns=names)
    except DamagedParquet as error:
        yield Record(
            count.number + 1, BadRecord(f"the Parquet file cannot be read any further: {error}", rest_lost=True)
        )
        count.number = max(count.number, total)  # the numbers of later ranges follow


@contextmanager
def open_parquet(stream: BinaryIO) -> Iterator[pq.ParquetFile]:
    """A Parquet file for reading.

    Raises:
        DamagedParquet: it cannot be opened; or, inside the block, cannot be read further.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            yield file
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last for names of columns
        raise DamagedParquet(" ".join(str(error).split())) from error


def _rows_at_a_time(metadata: Any, groups: Sequence[int]) -> int:
    found = [metadata.row_group(i) for i in groups]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in found), default=0)
    return max(1, min(PARQUET_ROWS, int(PARQUET_BYTES / max(1, largest))))


def _rows(batch: Any) -> Iterator[dict[str, Any]]:
    """A batch's rows; in place of a value that cannot be represented in Python stands why."""
    try:
        yield from batch.to_pylist()
    except UNREADABLE:
        names = batch.schema.names
        columns = [_values(column, name) for name, column in zip(names, batch.columns, strict=True)]
        yield from (dict(zip(names, values, strict=True)) for values in zip(*columns, strict=True))


def _values(column: Any, name: str) -> list[Any]:
    """A column's values; one by one where one of them cannot be represented in Python."""
    try:
        return list(column.to_pylist())
    except UNREADABLE:
        return [_value(scalar, name) for scalar in column]


def _value(scalar: Any, name: str) -> Any:
    try:
        return scalar.as_py()
    except UnicodeDecodeError as error:  # Parquet files may hold strings that are not UTF-8
        return Unreadable(f"invalid UTF-8: {error.reason} at byte {error.start} of field {list_names([name])}")
    except UNREADABLE as error:
        written = _format_scalar(scalar)
        if written is None:
            return Unreadable(f"field {list_names([name])} cannot be read: {type(error).__name__}: {error}")
        return written


def _readable(row: dict[str, Any]) -> dict[str, Any] | BadRecord:
    """A row, unless a value of it cannot be read."""
    reason = next((value.reason for value in row.values() if isinstance(value, Unreadable)), None)
    return row if reason is None else BadRecord(reason)


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
    try:
        sizes = _group_rows(listing, name)
    except DamagedParquet as error:
        raise InputError(f"{listing.path(name)} cannot be read: {error}; did the source change?") from error
    group = 0
    while group < len(sizes) - 1 and number > sizes[group]:
        number -= sizes[group]
        group += 1
    return FileRange(name, group, group + 1), number


def spread_row_groups(listing: Listing, name: str, parts: int) -> list[FileRange]:
    """At most `parts` row groups, evenly spread; the whole file where its footer cannot be read, so that the reader
    reports why."""
    try:
        groups = len(_group_rows(listing, name))
    except DamagedParquet:
        return [FileRange(name)]
    chosen = sorted({groups * part // parts for part in range(parts)}) if groups else []
    return [FileRange(name, group, group + 1) for group in chosen]


def _group_rows(listing: Listing, name: str) -> list[int]:
    """Number of rows of each row group."""
    with listing.open(name) as stream, open_parquet(stream) as file:
        return [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
