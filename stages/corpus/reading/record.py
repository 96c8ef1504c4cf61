"""What a reader returns for each record of a file: the record, or why it cannot be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BadRecord:
    """Why a record cannot be used."""

    reason: str
    rest_lost: bool = False
    """True when nothing after it in the file can be read, so that an unknown number of records is lost."""


@dataclass(frozen=True)
class Unreadable:
    """Stands for a value of a record that cannot be read, where the others are of use without it."""

    reason: str


@dataclass(frozen=True)
class Record:
    """A record and its number, from 1, in a file or a range of one: line in JSON Lines, row in Parquet, sequence in
    FASTA; a text file is one record."""

    number: int
    value: dict[str, Any] | BadRecord
    span: str = ""
    """Which part of a record that is cut, such as letters `1-1000` of a sequence; empty for a whole record."""
    columns: Sequence[str] = ()
    """All columns of a Parquet file, of which `value` may have only some; empty for other formats."""


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


def too_long(size: int, limit: int) -> BadRecord:
    """The reason for a record of more bytes than are read."""
    return BadRecord(f"the record has {size:,} bytes, more than the {limit:,} of maximum_record_bytes")
