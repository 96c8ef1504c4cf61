"""Records of a file, one by one; what cannot be read comes out as a `Bad` with the place and the reason."""

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
"""Ends of names of FASTA files: of any content, of nucleotides, of amino acids."""

_PLAIN = ("*.jsonl", "*.ndjson", "*.txt", *(f"*{end}" for end in FASTA))
PATTERNS = ("*.parquet", *_PLAIN, *(f"{pattern}.gz" for pattern in _PLAIN))
"""Files that can be read as documents."""


PARQUET_ROWS, PARQUET_BYTES = 256, 8 << 20
"""So many rows are held at a time, fewer where they are large: about so many bytes."""

NAMES_TOLD, NAME_TOLD = 20, 60
"""A reason names so many fields, and so many characters of each name."""

ABOUT_FILES = ("readme.txt", "license.txt", "licence.txt", "notice.txt", "citation.txt")
"""Text files that tell about a folder's documents and are none."""


UNREADABLE = (ValueError, OverflowError, LookupError)
"""What pyarrow raises for values that Python has no object for: broken UTF-8, years beyond 9999, unknown time zones."""

UTF16 = "the file is UTF-16; only UTF-8 is read"


@dataclass(frozen=True)
class Bad:
    """A record that cannot be used, and why."""

    reason: str
    rest_lost: bool = False
    """True when nothing behind it in the file can be read, so that an unknown number of records is lost."""


@dataclass(frozen=True)
class Record:
    """A record at its place in a file or a piece of one: line in JSON Lines, row in Parquet, 1 in a text file, sequence
    in FASTA."""

    number: int
    value: dict[str, Any] | Bad
    span: str = ""
    """Which part of the record it is, where that is cut: letters `1-1000` of a sequence."""


def format_of(name: str) -> str | None:
    """`jsonl`, `parquet`, `txt` or `fasta` by a file's name, None for others."""
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
    """How a source's file is read; an empty string for a file that is no document."""
    own = format_of(name) or ""
    if source.format == "auto":
        return own
    return source.format if own in ("", source.format.removesuffix("_upper")) else ""


@dataclass
class Seen:
    """How many records of a file or a piece of one were seen so far, blank lines among them."""

    number: int = 0


@dataclass(frozen=True)
class Piece:
    """A file or a part of one: a range of bytes in JSON Lines and FASTA, of row groups in Parquet."""

    file: str
    start: int = 0
    end: int | None = None


def read_records(
    listing: Listing,
    piece: str | Piece,
    format: str,
    columns: Sequence[str] | None = None,
    limit: int = MAXIMUM_RECORD_BYTES,
    seen: Seen | None = None,
    window: int | None = None,
) -> Iterator[Record]:
    """All records of a file or of a piece of one, the unreadable ones as `Bad`. Numbers count within the piece.

    Args:
        format: `jsonl`, `parquet`, `txt`, `fasta` or `fasta_upper`.
        columns: what to read of a Parquet file; None reads all.
        limit: bytes that a record may have.
        seen: told how far the numbers have come.
        window: letters after which a sequence of a FASTA file is cut.

    Raises:
        InputError: the file is gone, or a range of it cannot be read.
    """
    piece = Piece(piece) if isinstance(piece, str) else piece
    seen = seen or Seen()
    with listing.open(piece.file) as stream:
        if format == "parquet":
            yield from _parquet(stream, piece, columns, limit, seen)
            return
        plain: Any = gzip.GzipFile(fileobj=stream) if piece.file.lower().endswith(".gz") else stream
        if format == "jsonl":
            yield from _jsonl(plain, piece, limit, seen)
        elif format == "txt":
            yield from _txt(plain, limit)
        else:
            yield from _fasta(plain, piece, limit, seen, window, upper=format == "fasta_upper")


def _too_long(size: int, limit: int) -> Bad:
    return Bad(f"the record has {size:,} bytes, more than the {limit:,} of maximum_record_bytes")


def _jsonl(stream: BinaryIO, piece: Piece, limit: int, seen: Seen) -> Iterator[Record]:
    found = lines(stream, limit, piece.start, piece.end)
    lost = False
    while True:
        try:
            line = next(found)
        except StopIteration:
            return
        except (EOFError, zlib.error, OSError) as error:
            if piece.end is not None:  # the numbers of all lines behind are unknown
                raise InputError(f"{piece.file} cannot be read behind its first pieces: {error}") from error
            yield Record(seen.number + 1, Bad(f"the file cannot be read any further: {error}", rest_lost=True))
            return
        number = seen.number = seen.number + 1
        if lost:
            continue  # counted all the same: pieces behind this one go on from here
        if isinstance(line, TooLong):
            yield Record(number, _too_long(line, limit))
            continue
        if number == 1 and piece.start == 0:
            if _is_utf16(line):
                yield Record(number, Bad(UTF16, rest_lost=True))
                lost = True
                continue
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line and not line.isspace():
            yield Record(number, _json_object(line))


def _is_utf16(data: bytes) -> bool:
    """By the mark at its start, or by zero bytes in every second place, as Western text has them."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return True
    first = data[: 1 << 10]
    zeros = first[::2].count(0), first[1::2].count(0)
    return len(first) >= 4 and max(zeros) * 3 > len(first) and min(zeros) * 10 < max(zeros)


def _json_object(line: bytes) -> dict[str, Any] | Bad:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as wrong:
            return Bad(UTF16 if _is_utf16(line) else f"invalid UTF-8: {wrong.reason} at byte {wrong.start} of the line")
        if _is_utf16(line):
            return Bad(UTF16)
        # Half of a character that UTF-16 writes as two: it has no UTF-8.
        return Bad(f"{'lone surrogate' if 'surrogate' in error.msg else 'broken JSON'}: {error}")
    return value if isinstance(value, dict) else Bad(f"a JSON {type(value).__name__}, not an object")


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
            yield Record(1, Bad(UTF16))
            return
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        yield Record(1, Bad(f"invalid UTF-8: {error.reason} at byte {error.start}"))
    except (EOFError, zlib.error, OSError) as error:
        yield Record(1, Bad(f"the file cannot be read: {error}", rest_lost=True))
    else:
        yield Record(1, {"text": text})


def _fasta(stream: BinaryIO, piece: Piece, limit: int, seen: Seen, window: int | None, upper: bool) -> Iterator[Record]:
    """Sequences with the fields `id` (see `_region`), `title` (the whole line behind `>`) and `text`."""
    try:
        for found in fasta.sequences(stream, limit, window, upper, piece.start, piece.end):
            seen.number = found.number
            value = {"id": _region(found.header, found.span), "title": found.header, "text": found.letters}
            yield Record(found.number, Bad(found.reason) if found.reason else value, found.span)
    except (EOFError, zlib.error, OSError) as error:
        if piece.end is not None:  # the numbers of all records behind are unknown
            raise InputError(f"{piece.file} cannot be read behind its first pieces: {error}") from error
        yield Record(seen.number + 1, Bad(f"the file cannot be read any further: {error}", rest_lost=True))


def _parquet(stream: BinaryIO, piece: Piece, columns: Sequence[str] | None, limit: int, seen: Seen) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    total = 0
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            there = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
            groups = list(range(file.num_row_groups)[piece.start : piece.end])
            rows = _rows_at_a_time(file.metadata, groups)
            total = sum(file.metadata.row_group(i).num_rows for i in groups)
            for batch in file.iter_batches(batch_size=rows, row_groups=groups, columns=there):
                for value in _rows(batch):
                    seen.number += 1
                    yield Record(seen.number, _within(value, limit))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        yield Record(seen.number + 1, Bad(f"the Parquet file cannot be read any further: {reason}", rest_lost=True))
        seen.number = max(seen.number, total)  # pieces behind this one go on from here


def _rows_at_a_time(metadata: Any, groups: Sequence[int]) -> int:
    found = [metadata.row_group(i) for i in groups]
    largest = max((group.total_byte_size / max(1, group.num_rows) for group in found), default=0)
    return max(1, min(PARQUET_ROWS, int(PARQUET_BYTES / max(1, largest))))


def _rows(batch: Any) -> Iterator[dict[str, Any] | Bad]:
    """A batch's rows; one by one where a value of it has no counterpart in Python."""
    try:
        rows = batch.to_pylist()
    except UNREADABLE:
        rows = (_row(batch.slice(i, 1)) for i in range(len(batch)))
    yield from rows


def _row(batch: Any) -> dict[str, Any] | Bad:
    """The only row of a batch."""
    row = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        try:
            row[name] = column[0].as_py()
        except UnicodeDecodeError as error:  # Parquet does not forbid strings that are no UTF-8
            return Bad(f"invalid UTF-8: {error.reason} at byte {error.start} of field {_named([name])}")
        except UNREADABLE as error:
            written = _written(column[0])
            if written is None:
                return Bad(f"field {_named([name])} cannot be read: {type(error).__name__}: {error}")
            row[name] = written
    return row


def _written(scalar: Any) -> str | None:
    """A value as Arrow writes it, such as a date beyond the year 9999; None if it cannot either."""
    import pyarrow as pa

    try:
        written = scalar.cast(pa.string()).as_py()
    except pa.ArrowException:
        return None
    return None if written is None or written.startswith("<value out of range") else str(written)


def _within(value: dict[str, Any] | Bad, limit: int) -> dict[str, Any] | Bad:
    if isinstance(value, Bad):
        return value
    texts = [field for field in value.values() if isinstance(field, str)]
    if 4 * sum(map(len, texts)) <= limit:
        return value
    size = sum(len(text.encode()) for text in texts)
    return _too_long(size, limit) if size > limit else value


def _named(names: Sequence[str]) -> str:
    """Names of fields for a reason: a record may have any number of them, of any length."""
    told = [name if len(name) <= NAME_TOLD else f"{name[:NAME_TOLD]}..." for name in names[:NAMES_TOLD]]
    more = len(names) - len(told)
    return ", ".join(told) + (f" and {more:,} more" if more else "")


def text_of(row: dict[str, Any], field: str) -> str | Bad:
    """The document in a record: one field, or several (`question+answer`) with a blank line between them."""
    names = [field] if field in row else field.split("+")
    parts = []
    for name in names:
        value = row.get(name)
        if value is None:
            continue
        if not isinstance(value, str):
            return Bad(f"field {name!r} is a {type(value).__name__}, not a string")
        if value.strip():
            parts.append(value.strip() if len(names) > 1 else value)
    if parts:
        return "\n\n".join(parts)
    there = any(row.get(name) is not None for name in names)
    return Bad(f"field {field!r} is empty" if there else f"no field {field!r}; there are: {_named(sorted(row))}")


def read_original(
    listing: Listing, uri: str, source: SourceConfig | None = None, limit: int = MAXIMUM_RECORD_BYTES
) -> dict[str, Any]:
    """The record that a document's uri (`file#number`, `file#number:first-last`) points at, as it stands in the source.

    Args:
        source: tells how files are read whose names do not.
        limit: bytes that a record may have.

    Raises:
        InputError: there is no such record any more.
    """
    name, _, place = uri.rpartition("#")
    number, _, span = place.partition(":")
    format = format_in(name, source) if source else format_of(name)
    if name in {file.name for file in listing.files} and format and number.isdecimal() and int(number) > 0:
        value: dict[str, Any] | Bad | None = None
        if not span:
            value = _nth(listing, name, format, int(number), limit)
        elif format.startswith("fasta"):
            value = _letters(listing, name, int(number), span)
        if isinstance(value, dict):
            return value
    raise InputError(f"{listing.location} has no record {uri}; did the source change?")


def _nth(listing: Listing, name: str, format: str, number: int, limit: int) -> dict[str, Any] | Bad | None:
    """One record: of JSON Lines only its own line is parsed, of Parquet only its row group is read."""
    if format == "jsonl":
        with listing.open(name) as stream:
            plain: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
            line = next(islice(lines(plain, limit), number - 1, None), None)
        if line is None or isinstance(line, TooLong):
            return None
        return _json_object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
    piece = Piece(name)
    if format == "parquet":
        piece, number = _row_group_of(listing, name, number)
    return next((r.value for r in read_records(listing, piece, format, limit=limit) if r.number == number), None)


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
    """How samtools calls a part of a sequence: `chr1:1-1000`."""
    return f"{fasta.identifier(header)}:{span}" if span else fasta.identifier(header)


def _row_group_of(listing: Listing, name: str, number: int) -> tuple[Piece, int]:
    """The row group with a file's row `number`, and the row's number in it; the last one if there are fewer."""
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
    return Piece(name, group, group + 1), number
