"""Records of a file, one by one; one that cannot be read is a `BadRecord` with its reason."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import orjson

from stages.corpus.config import MAXIMUM_RECORD_BYTES, SourceConfig
from stages.corpus.reading import fasta
from stages.corpus.reading.lines import BLOCK, TooLong, lines
from stages.corpus.reading.listing import Listing
from stages.store import InputError

FASTA = (".fasta", ".fa", ".fna", ".faa")
"""Suffixes of FASTA files: of any content, of nucleotides, of amino acids."""

_PLAIN = ("*.jsonl", "*.ndjson", "*.txt", *(f"*{end}" for end in FASTA))
PATTERNS = ("*.parquet", *_PLAIN, *(f"{pattern}.gz" for pattern in _PLAIN))
"""Files that can be read as documents."""


PARQUET_ROWS, PARQUET_BYTES = 256, 8 << 20
"""Most rows that are held at a time, and about how many bytes; fewer rows where they are large."""

MOST_NAMES, NAME_CHARACTERS = 20, 60
"""How many fields a reason lists, and how many characters of each name."""

ABOUT_FILES = ("readme.txt", "license.txt", "licence.txt", "notice.txt", "citation.txt")
"""Text files that describe a folder and are no documents."""


UNREADABLE = (ValueError, OverflowError, LookupError)
"""What pyarrow raises for values that Python cannot represent: broken UTF-8, years beyond 9999, unknown time zones."""

UTF16 = "the file is UTF-16; only UTF-8 is read"


@dataclass(frozen=True)
class BadRecord:
    """Why a record cannot be used."""

    reason: str
    rest_lost: bool = False
    """True when nothing after it in the file can be read, so that an unknown number of records is lost."""


@dataclass(frozen=True)
class Record:
    """A record and its number, from 1, in a file or a range of one: line in JSON Lines, row in Parquet, sequence in
    FASTA; a text file is one record."""

    number: int
    value: dict[str, Any] | BadRecord
    span: str = ""
    """Which part of a record that is cut, such as letters `1-1000` of a sequence; empty for a whole record."""


def format_of(name: str) -> str | None:
    """`jsonl`, `parquet`, `txt` or `fasta`, by a file's name; None for other files."""
    base = name.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    if base in ABOUT_FILES:
        return None
    if base.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if base.endswith(".txt"):
        return "txt"
    if base.endswith(FASTA):
        return "fasta"
    return "parquet" if name.lower().endswith(".parquet") else None


def format_in(name: str, source: SourceConfig) -> str:
    """The format of a source's file; an empty string for a file that is not read."""
    own = format_of(name) or ""
    if source.format == "auto":
        return own
    return source.format if own in ("", source.format.removesuffix("_upper")) else ""


@dataclass
class RecordCount:
    """How many records of a file or a range of one were read so far, blank lines included."""

    number: int = 0


@dataclass(frozen=True)
class FileRange:
    """A file or a part of one: bytes `start` to `end` of JSON Lines and FASTA, row groups of Parquet."""

    file: str
    start: int = 0
    end: int | None = None


def read_records(
    listing: Listing,
    file_range: str | FileRange,
    format: str,
    columns: Sequence[str] | None = None,
    limit: int = MAXIMUM_RECORD_BYTES,
    count: RecordCount | None = None,
    window: int | None = None,
) -> Iterator[Record]:
    """All records of a file or of a range of one, the unreadable ones as `BadRecord`. Numbers count within the range.

    Args:
        format: `jsonl`, `parquet`, `txt`, `fasta` or `fasta_upper`.
        columns: what to read of a Parquet file; None reads all.
        limit: bytes that a record may have.
        count: updated with the number of records read so far.
        window: letters after which a sequence of a FASTA file is cut.

    Raises:
        InputError: the file is gone, or a range of it cannot be read.
    """
    file_range = FileRange(file_range) if isinstance(file_range, str) else file_range
    count = count or RecordCount()
    with listing.open(file_range.file) as stream:
        if format == "parquet":
            yield from _parquet(stream, file_range, columns, limit, count)
            return
        plain: Any = gzip.GzipFile(fileobj=stream) if file_range.file.lower().endswith(".gz") else stream
        if format == "jsonl":
            yield from _jsonl(plain, file_range, limit, count)
        elif format == "txt":
            yield from _txt(plain, limit)
        else:
            yield from _fasta(plain, file_range, limit, count, window, upper=format == "fasta_upper")


def _too_long(size: int, limit: int) -> BadRecord:
    return BadRecord(f"the record has {size:,} bytes, more than the {limit:,} of maximum_record_bytes")


def _jsonl(stream: BinaryIO, file_range: FileRange, limit: int, count: RecordCount) -> Iterator[Record]:
    found = lines(stream, limit, file_range.start, file_range.end)
    lost = False
    while True:
        try:
            line = next(found)
        except StopIteration:
            return
        except (EOFError, zlib.error, OSError) as error:
            if file_range.end is not None:  # the numbers of all later lines are unknown
                raise InputError(
                    f"{file_range.file} cannot be read beyond byte {file_range.start:,}: {error}"
                ) from error
            yield Record(count.number + 1, BadRecord(f"the file cannot be read any further: {error}", rest_lost=True))
            return
        number = count.number = count.number + 1
        if lost:
            continue  # counted nevertheless: the numbers of later ranges follow
        if isinstance(line, TooLong):
            yield Record(number, _too_long(line, limit))
            continue
        if number == 1 and file_range.start == 0:
            if _is_utf16(line):
                yield Record(number, BadRecord(UTF16, rest_lost=True))
                lost = True
                continue
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line and not line.isspace():
            yield Record(number, _json_object(line))


def _is_utf16(data: bytes) -> bool:
    """By its byte order mark, or by zero bytes in every second place, as in Western text."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    first = data[: 1 << 10]
    zeros = first[::2].count(0), first[1::2].count(0)
    return len(first) >= 4 and max(zeros) * 3 > len(first) and min(zeros) * 10 < max(zeros)


def _json_object(line: bytes) -> dict[str, Any] | BadRecord:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as wrong:
            return BadRecord(
                UTF16 if _is_utf16(line) else f"invalid UTF-8: {wrong.reason} at byte {wrong.start} of the line"
            )
        if _is_utf16(line):
            return BadRecord(UTF16)
        # Half of a surrogate pair, which UTF-8 cannot represent.
        return BadRecord(f"{'lone surrogate' if 'surrogate' in error.msg else 'broken JSON'}: {error}")
    return value if isinstance(value, dict) else BadRecord(f"a JSON {type(value).__name__}, not an object")


def _txt(stream: BinaryIO, limit: int) -> Iterator[Record]:
    try:
        data = stream.read(limit + 1)
        size = len(data)
        while size > limit and (more := stream.read(BLOCK)):
            size += len(more)
        if size > limit:
            yield Record(1, _too_long(size, limit))
            return
        if _is_utf16(data):
            yield Record(1, BadRecord(UTF16))
            return
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        yield Record(1, BadRecord(f"invalid UTF-8: {error.reason} at byte {error.start}"))
    except (EOFError, zlib.error, OSError) as error:
        yield Record(1, BadRecord(f"the file cannot be read: {error}", rest_lost=True))
    else:
        yield Record(1, {"text": text})


def _fasta(
    stream: BinaryIO, file_range: FileRange, limit: int, count: RecordCount, window: int | None, upper: bool
) -> Iterator[Record]:
    """Sequences with the fields `id` (see `_region`), `title` (the header without `>`) and `text`."""
    try:
        for found in fasta.sequences(stream, limit, window, upper, file_range.start, file_range.end):
            count.number = found.number
            value = {"id": _region(found.header, found.span), "title": found.header, "text": found.letters}
            yield Record(found.number, BadRecord(found.reason) if found.reason else value, found.span)
    except (EOFError, zlib.error, OSError) as error:
        if file_range.end is not None:  # the numbers of all later records are unknown
            raise InputError(f"{file_range.file} cannot be read beyond byte {file_range.start:,}: {error}") from error
        yield Record(count.number + 1, BadRecord(f"the file cannot be read any further: {error}", rest_lost=True))


def _parquet(
    stream: BinaryIO, file_range: FileRange, columns: Sequence[str] | None, limit: int, count: RecordCount
) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            there = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
            groups = list(range(file.num_row_groups)[file_range.start : file_range.end])
            rows = _rows_at_a_time(file.metadata, groups)
            total = sum(file.metadata.row_group(i).num_rows for i in groups)
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=there):
                for value in _rows(batch):
                    count.number += 1
                    yield Record(count.number, _checked_size(value, limit))
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
            return BadRecord(f"invalid UTF-8: {error.reason} at byte {error.start} of field {_list_names([name])}")
        except UNREADABLE as error:
            written = _format_scalar(column[0])
            if written is None:
                return BadRecord(f"field {_list_names([name])} cannot be read: {type(error).__name__}: {error}")
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
    texts = [field for field in value.values() if isinstance(field, str)]
    if 4 * sum(map(len, texts)) <= limit:
        return value
    size = sum(len(text.encode()) for text in texts)
    return _too_long(size, limit) if size > limit else value


def _list_names(names: Sequence[str]) -> str:
    """Field names for a reason, shortened: a record may have any number of them, of any length."""
    shown = [name if len(name) <= NAME_CHARACTERS else f"{name[:NAME_CHARACTERS]}..." for name in names[:MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")


def text_of(row: dict[str, Any], field: str) -> str | BadRecord:
    """The document of a record: one field, or several (`question+answer`) joined by a blank line."""
    names = [field] if field in row else field.split("+")
    parts = []
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            return BadRecord(f"field {name!r} is a {type(value).__name__}, not a string")
        if value.strip():
            parts.append(value.strip() if len(names) > 1 else value)
    if parts:
        return "\n\n".join(parts)
    there = any(row.get(name) is not None for name in names)
    return BadRecord(
        f"field {field!r} is empty" if there else f"no field {field!r}; there are: {_list_names(sorted(row))}"
    )


def read_original(
    listing: Listing, uri: str, source: SourceConfig | None = None, limit: int = MAXIMUM_RECORD_BYTES
) -> dict[str, Any]:
    """The record that a document's uri (`file#number`, `file#number:first-last`) refers to, unchanged from the source.

    Args:
        source: gives the format of files whose names do not.
        limit: bytes that a record may have.

    Raises:
        InputError: the source has no such record.
    """
    name, _, place = uri.rpartition("#")
    number, _, span = place.partition(":")
    format = format_in(name, source) if source else format_of(name)
    if name in {file.name for file in listing.files} and format and number.isdecimal() and int(number) > 0:
        value: dict[str, Any] | BadRecord | None = None
        if not span:
            value = _nth(listing, name, format, int(number), limit)
        elif format.startswith("fasta"):
            value = _letters(listing, name, int(number), span)
        if isinstance(value, dict):
            return value
    raise InputError(f"{listing.location} has no record {uri}; did the source change?")


def _nth(listing: Listing, name: str, format: str, number: int, limit: int) -> dict[str, Any] | BadRecord | None:
    """One record: of JSON Lines only its own line is parsed, of Parquet only its row group is read."""
    if format == "jsonl":
        with listing.open(name) as stream:
            plain: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
            line = next(islice(lines(plain, limit), number - 1, None), None)
        if line is None or isinstance(line, TooLong):
            return None
        return _json_object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    file_range = FileRange(name)
    if format == "parquet":
        file_range, number = _row_group_of(listing, name, number)
    return next((r.value for r in read_records(listing, file_range, format, limit=limit) if r.number == number), None)


def _letters(listing: Listing, name: str, number: int, span: str) -> dict[str, Any] | None:
    """A part of a sequence; only the part is held."""
    first, _, last = span.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        return None
    with listing.open(name) as stream:
        plain: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
        found = fasta.letters_of(plain, number, int(first), int(last))
    return {"id": _region(found[0], span), "title": found[0], "text": found[1]} if found else None


def _region(header: str, span: str) -> str:
    """Name of a part of a sequence as in samtools: `chr1:1-1000`."""
    return f"{fasta.identifier(header)}:{span}" if span else fasta.identifier(header)


def _row_group_of(listing: Listing, name: str, number: int) -> tuple[FileRange, int]:
    """The row group with a file's row `number`, and the row's number in it; the last group if there are fewer rows."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with listing.open(name) as stream, pq.ParquetFile(stream) as file:
            sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{listing.path(name)} cannot be read: {error}; did the source change?") from error
    group = 0
    while group < len(sizes) - 1 and number > sizes[group]:
        number -= sizes[group]
        group += 1
    return FileRange(name, group, group + 1), number
