"""Records of a file, one by one; what cannot be read comes out as a `Bad` with the place and the reason."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO

import orjson

from stages.artifact import InputError
from stages.corpus.config import MAXIMUM_RECORD_BYTES, SourceConfig
from stages.corpus.lines import BLOCK, TooLong, lines
from stages.corpus.listing import Listing

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.ndjson", "*.ndjson.gz", "*.parquet", "*.txt", "*.txt.gz")
"""Files that can be read as documents."""


PARQUET_ROWS = 256
"""Rows that are held at a time."""

ABOUT_FILES = ("readme.txt", "license.txt", "licence.txt", "notice.txt", "citation.txt")
"""Text files that tell about a folder's documents and are none."""


@dataclass(frozen=True)
class Bad:
    """A record that cannot be used, and why."""

    reason: str
    rest_lost: bool = False
    """True when nothing behind it in the file can be read, so that an unknown number of records is lost."""


@dataclass(frozen=True)
class Record:
    """A record at its place in a file or a piece of one: line in JSON Lines, row in Parquet, 1 in a text file."""

    number: int
    value: dict[str, Any] | Bad


def format_of(name: str) -> str | None:
    """`jsonl`, `parquet` or `txt` by a file's name, None for others."""
    base = name.rsplit("/", 1)[-1].lower().removesuffix(".gz")
    if base in ABOUT_FILES:
        return None
    if base.endswith((".jsonl", ".ndjson")):
        return "jsonl"
    if base.endswith(".txt"):
        return "txt"
    return "parquet" if name.lower().endswith(".parquet") else None


def format_in(name: str, source: SourceConfig) -> str:
    """How a source's file is read; an empty string for a file that is no document."""
    own = format_of(name) or ""
    if source.format == "auto":
        return own
    return source.format if own in ("", source.format) else ""


@dataclass
class Seen:
    """How many records of a file or a piece of one were seen so far, blank lines among them."""

    number: int = 0


@dataclass(frozen=True)
class Piece:
    """A file or a part of one: a range of bytes in JSON Lines, of row groups in Parquet."""

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
) -> Iterator[Record]:
    """All records of a file or of a piece of one, the unreadable ones as `Bad`. Numbers count within the piece.

    Args:
        format: `jsonl`, `parquet` or `txt`.
        columns: what to read of a Parquet file; None reads all.
        limit: bytes that a record may have.
        seen: told how far the numbers have come.

    Raises:
        InputError: the file is gone.
    """
    piece = Piece(piece) if isinstance(piece, str) else piece
    seen = seen or Seen()
    with listing.open(piece.file) as stream:
        if format == "parquet":
            yield from _parquet(stream, piece, columns, limit, seen)
            return
        plain: Any = gzip.GzipFile(fileobj=stream) if piece.file.lower().endswith(".gz") else stream
        yield from _jsonl(plain, piece, limit, seen) if format == "jsonl" else _txt(plain, limit)


def _too_long(size: int, limit: int) -> Bad:
    return Bad(f"the record has {size:,} bytes, more than the {limit:,} of maximum_record_bytes")


def _jsonl(stream: BinaryIO, piece: Piece, limit: int, seen: Seen) -> Iterator[Record]:
    found = lines(stream, limit, piece.start, piece.end)
    while True:
        try:
            line = next(found)
        except StopIteration:
            return
        except (EOFError, zlib.error, OSError) as error:
            yield Record(seen.number + 1, Bad(f"the file cannot be read any further: {error}", rest_lost=True))
            return
        number = seen.number = seen.number + 1
        if isinstance(line, TooLong):
            yield Record(number, _too_long(line, limit))
            continue
        if number == 1 and piece.start == 0:
            if line.startswith((b"\xff\xfe", b"\xfe\xff")):
                yield Record(number, Bad("the file is UTF-16; only UTF-8 is read", rest_lost=True))
                return
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line and not line.isspace():
            yield Record(number, _json_object(line))


def _json_object(line: bytes) -> dict[str, Any] | Bad:
    try:
        value = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        try:
            line.decode("utf-8")
        except UnicodeDecodeError as wrong:
            return Bad(f"invalid UTF-8: {wrong.reason} at byte {wrong.start} of the line")
        return Bad(f"broken JSON: {error}")
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
        text = data.removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        yield Record(1, Bad(f"invalid UTF-8: {error.reason} at byte {error.start}"))
    except (EOFError, zlib.error, OSError) as error:
        yield Record(1, Bad(f"the file cannot be read: {error}", rest_lost=True))
    else:
        yield Record(1, {"text": text})


def _parquet(stream: BinaryIO, piece: Piece, columns: Sequence[str] | None, limit: int, seen: Seen) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            there = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
            groups = range(file.num_row_groups)[piece.start : piece.end]
            for batch in file.iter_batches(batch_size=PARQUET_ROWS, row_groups=list(groups), columns=there):
                for value in _rows(batch):
                    seen.number += 1
                    yield Record(seen.number, _within(value, limit))
    except (pa.ArrowException, OSError) as error:
        reason = " ".join(str(error).split())
        yield Record(seen.number + 1, Bad(f"the Parquet file cannot be read any further: {reason}", rest_lost=True))


def _rows(batch: Any) -> Iterator[dict[str, Any] | Bad]:
    """A batch's rows; one by one where a string of it is no UTF-8, which Parquet does not forbid."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for i in range(len(batch)):
        try:
            yield batch.slice(i, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield Bad(f"invalid UTF-8: {error.reason} at byte {error.start} of a field")


def _within(value: dict[str, Any] | Bad, limit: int) -> dict[str, Any] | Bad:
    if isinstance(value, Bad):
        return value
    size = sum(len(field) for field in value.values() if isinstance(field, str))
    return _too_long(size, limit) if size > limit else value


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
    return Bad(f"field {field!r} is empty" if there else f"no field {field!r}; there are: {', '.join(sorted(row))}")


def read_original(listing: Listing, uri: str) -> dict[str, Any]:
    """The record that a document's uri (`file#number`) points at, as it stands in the source.

    Raises:
        InputError: there is no such record any more.
    """
    name, _, number = uri.rpartition("#")
    format = format_of(name)
    if name in {file.name for file in listing.files} and format and number.isdigit():
        value = _nth(listing, name, format, int(number))
        if isinstance(value, dict):
            return value
    raise InputError(f"{listing.location} has no record {uri}; did the source change?")


def _nth(listing: Listing, name: str, format: str, number: int) -> dict[str, Any] | Bad | None:
    """One record; of JSON Lines only its own line is parsed."""
    if format != "jsonl":
        return next((r.value for r in read_records(listing, name, format) if r.number == number), None)
    with listing.open(name) as stream:
        plain: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
        line = next(islice(lines(plain, MAXIMUM_RECORD_BYTES), number - 1, None), None) if number > 0 else None
    if line is None or isinstance(line, TooLong):
        return None
    return _json_object(line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
