"""Finds the record that a document was made from."""

from __future__ import annotations

import gzip
from itertools import islice
from typing import Any

from stages.corpus.config import MAXIMUM_RECORD_BYTES, SourceConfig
from stages.corpus.reading import fasta
from stages.corpus.reading.json_lines import json_object
from stages.corpus.reading.lines import TooLong, lines
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.parquet import row_group_of
from stages.corpus.reading.record import BadRecord, FileRange
from stages.corpus.reading.records import format_in, format_of, read_records
from stages.store import InputError


def read_original(
    listing: Listing, uri: str, source: SourceConfig | None = None, limit: int = MAXIMUM_RECORD_BYTES
) -> dict[str, Any]:
    """The record that a document's uri (`file#number`, `file#number:first-last`) refers to, unchanged from the source.

    A value of a Parquet file that cannot be read is `Unreadable`.

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
        return json_object(line)
    file_range = FileRange(name)
    if format == "parquet":
        file_range, number = row_group_of(listing, name, number)
    return next((r.value for r in read_records(listing, file_range, format, limit=limit) if r.number == number), None)


def _letters(listing: Listing, name: str, number: int, span: str) -> dict[str, Any] | None:
    """A part of a sequence; only the part is held."""
    first, _, last = span.partition("-")
    if not (first.isdecimal() and last.isdecimal()):
        return None
    with listing.open(name) as stream:
        plain: Any = gzip.GzipFile(fileobj=stream) if name.lower().endswith(".gz") else stream
        found = fasta.letters_of(plain, number, int(first), int(last))
    return {"id": fasta.region(found[0], span), "title": found[0], "text": found[1]} if found else None
