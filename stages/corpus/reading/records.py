"""Records of a file, one by one; one that cannot be read is a `BadRecord` with its reason."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from stages.corpus.config import MAXIMUM_RECORD_BYTES, SourceConfig
from stages.corpus.reading import fasta
from stages.corpus.reading.content import decode_text
from stages.corpus.reading.json_lines import json_lines
from stages.corpus.reading.lines import BLOCK
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.parquet import parquet_rows
from stages.corpus.reading.record import BadRecord, FileRange, Record, RecordCount, too_long
from stages.store import InputError

FASTA = (".fasta", ".fa", ".fna", ".faa")
"""Suffixes of FASTA files: of any content, of nucleotides, of amino acids."""

_PLAIN = ("*.jsonl", "*.ndjson", "*.txt", *(f"*{end}" for end in FASTA))
PATTERNS = ("*.parquet", *_PLAIN, *(f"{pattern}.gz" for pattern in _PLAIN))
"""Files that can be read as documents."""

ABOUT_FILES = ("readme.txt", "license.txt", "licence.txt", "notice.txt", "citation.txt")
"""Text files that describe a folder and are no documents."""


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
            yield from parquet_rows(stream, file_range, columns, limit, count)
            return
        plain: Any = gzip.GzipFile(fileobj=stream) if file_range.file.lower().endswith(".gz") else stream
        if format == "jsonl":
            yield from json_lines(plain, file_range, limit, count)
        elif format == "txt":
            yield from _txt(plain, limit)
        else:
            yield from _fasta(plain, file_range, limit, count, window, upper=format == "fasta_upper")


def _txt(stream: BinaryIO, limit: int) -> Iterator[Record]:
    try:
        data = stream.read(limit + 1)
        size = len(data)
        while size > limit and (more := stream.read(BLOCK)):
            size += len(more)
        value: dict[str, Any] | BadRecord = too_long(size, limit) if size > limit else {"text": decode_text(data)}
    except (EOFError, zlib.error, OSError) as error:
        value = BadRecord(f"the file cannot be read: {error}", rest_lost=True)
    except ValueError as error:
        value = BadRecord(str(error))
    yield Record(1, value)


def _fasta(
    stream: BinaryIO, file_range: FileRange, limit: int, count: RecordCount, window: int | None, upper: bool
) -> Iterator[Record]:
    """Sequences with the fields `id` (see `fasta.region`), `title` (the header without `>`) and `text`."""
    try:
        for found in fasta.sequences(stream, limit, window, upper, file_range.start, file_range.end):
            count.number = found.number
            value = {"id": fasta.region(found.header, found.span), "title": found.header, "text": found.letters}
            yield Record(found.number, BadRecord(found.reason) if found.reason else value, found.span)
    except (EOFError, zlib.error, OSError) as error:
        if file_range.end is not None:  # the numbers of all later records are unknown
            raise InputError(f"{file_range.file} cannot be read beyond byte {file_range.start:,}: {error}") from error
        yield Record(count.number + 1, BadRecord(f"the file cannot be read any further: {error}", rest_lost=True))
