"""Records of a file, one by one; what cannot be read comes out as a `Bad` with the place and the reason."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

import orjson

from stages.artifact import InputError
from stages.corpus.config import SourceConfig
from stages.corpus.listing import Listing

PATTERNS = ("*.jsonl", "*.jsonl.gz", "*.ndjson", "*.ndjson.gz", "*.parquet", "*.txt", "*.txt.gz")
"""Files that can be read as documents."""


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
    """A record at its place: line number in JSON Lines, row number in Parquet, 1 in a text file."""

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


def read_records(listing: Listing, name: str, format: str, columns: Sequence[str] | None = None) -> Iterator[Record]:
    """All records of one file, the unreadable ones as `Bad`.

    Args:
        format: `jsonl`, `parquet` or `txt`.
        columns: what to read of a Parquet file; None reads all.

    Raises:
        InputError: the file is gone.
    """
    with listing.open(name) as stream:
        if format == "parquet":
            yield from _parquet(stream, columns)
            return
        plain: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
        yield from _jsonl(plain) if format == "jsonl" else _txt(plain)


def _jsonl(stream: BinaryIO) -> Iterator[Record]:
    number = 0
    lines = iter(stream)
    while True:
        try:
            line = next(lines)
        except StopIteration:
            return
        except (EOFError, zlib.error, OSError) as error:
            yield Record(number + 1, Bad(f"the file cannot be read any further: {error}", rest_lost=True))
            return
        number += 1
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if line.strip():
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


def _txt(stream: BinaryIO) -> Iterator[Record]:
    try:
        text = stream.read().removeprefix(b"\xef\xbb\xbf").decode("utf-8")
    except UnicodeDecodeError as error:
        yield Record(1, Bad(f"invalid UTF-8: {error.reason} at byte {error.start}"))
    except (EOFError, zlib.error, OSError) as error:
        yield Record(1, Bad(f"the file cannot be read: {error}", rest_lost=True))
    else:
        yield Record(1, {"text": text})


def _parquet(stream: BinaryIO, columns: Sequence[str] | None) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(stream) as file:
            there = None if columns is None else [c for c in columns if c in file.schema_arrow.names]
            for batch in file.iter_batches(batch_size=1024, columns=there):
                for row in batch.to_pylist():
                    number += 1
                    yield Record(number, row)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        yield Record(number + 1, Bad(f"the Parquet file cannot be read any further: {reason}", rest_lost=True))


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
        for record in read_records(listing, name, format):
            if record.number == int(number) and isinstance(record.value, dict):
                return record.value
    raise InputError(f"{listing.location} has no record {uri}; did the source change?")
