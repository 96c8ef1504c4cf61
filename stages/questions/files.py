"""The files of a question set, JSON Lines compressed or not, as numbered lines."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from stages import strict_json
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.unread import printable_name
from stages.store import InputError

SUFFIXES = (".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")
"""Endings of a set's files, in any case. Other files are left out."""

LONGEST_LINE = 16 << 20
"""Most bytes of a line. A question with its context has thousands; a compressed file of megabytes could have one line
of gigabytes, which would fill the memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Line:
    """One line that is not blank."""

    where: str
    """`path:number`, printable, the prefix of errors."""
    number: int
    """In its file, from 1."""
    content: bytes
    """As in the file, without line end and byte-order mark."""
    fields: dict[str, Any]


def set_name(file: str) -> str | None:
    """The name that a set has by its file's: without folders and suffix; None if it is not JSON Lines."""
    base = file.rsplit("/", 1)[-1]
    suffix = max((end for end in SUFFIXES if base.lower().endswith(end)), key=len, default=None)
    return None if suffix is None else base[: -len(suffix)]


def array_hint(names: Iterable[str]) -> str:
    """How to make a set of a JSON array, for an error, if one of these files may be one; else empty."""
    return f"; {_ARRAY_TO_LINES}" if any(name.lower().endswith(".json") for name in names) else ""


def read_lines(listing: Listing) -> Iterator[Line]:
    """The lines of a set's files, in order of files and lines.

    Raises:
        InputError: no file is JSON Lines; or, with file and line, a line that is not a JSON object in UTF-8 or is too
            long, or damaged compression.
    """
    names = [file.name for file in listing.files if set_name(file.name) is not None]
    if not names:
        others = [printable_name(file.name) for file in listing.files]
        raise InputError(
            f"{printable_name(listing.location)} has no questions: a set consists of JSON Lines files "
            f"({', '.join(SUFFIXES)}), its files are: {', '.join(others[:5])}{array_hint(others)}"
        )
    for name in names:
        yield from _lines_of(listing, name)


def _lines_of(listing: Listing, name: str) -> Iterator[Line]:
    path, number = printable_name(listing.path(name)), 0
    with listing.open(name) as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw
        try:
            for number, line in enumerate(iter(partial(stream.readline, LONGEST_LINE + 1), b""), start=1):
                if len(line) > LONGEST_LINE:
                    limit = f"{LONGEST_LINE >> 20} MiB"
                    raise InputError(f"{path}:{number}: more than {limit} in a line; a set has one question per line")
                content = (line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line).rstrip(b"\r\n")
                if content.strip():
                    where = f"{path}:{number}"
                    yield Line(where, number, content, _fields(content, where))
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"{path}: the gzip file is truncated or damaged after line {number} ({error}); replace it"
            ) from error


def _fields(content: bytes, where: str) -> dict[str, Any]:
    try:
        value = strict_json.loads(content)
    except ValueError as error:
        if content.lstrip().startswith(b"["):
            raise InputError(f"{where}: {_ONE_PER_LINE}") from error
        raise InputError(f"{where}: not valid JSON: {error}; a set has one question per line, in UTF-8") from error
    if isinstance(value, list):
        raise InputError(f"{where}: {_ONE_PER_LINE}")
    if not isinstance(value, dict):
        raise InputError(f"{where}: a question must be a JSON object, not {type(value).__name__}")
    return value


_ARRAY_TO_LINES = "`jq -c '.[]' FILE` turns a JSON array into lines"
_ONE_PER_LINE = f"a JSON array; a set has one question per line, a JSON object each ({_ARRAY_TO_LINES})"
