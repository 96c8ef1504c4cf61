"""FASTA: sequences of bases or residues, read in bounded memory whatever the length of lines and records.

A record is a line that begins with `>` (an identifier, a space, a description) and the lines of its sequence up to the
next. Any line ends and line lengths are allowed; white space in a sequence is ignored. Letters are the 26 of the
IUPAC codes in both cases (lower case marks masked repeats), `*` (a stop) and `-` (a gap).
"""

from __future__ import annotations

import re
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from stages.corpus.reading.lines import BLOCK, reader

LETTERS = string.ascii_letters.encode() + b"*-"
SPACE = string.whitespace.encode()
HEADER_BYTES = 64 << 10
"""Most bytes of a header that are kept."""

_HEADER = re.compile(rb"[\r\n]>")
_LINE_END = re.compile(rb"[\r\n]")
_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class Sequence:
    """A sequence, or a window of one."""

    number: int
    """Number of the record, from 1; text before the first `>` counts as a record."""
    header: str
    """The record's first line without `>`."""
    letters: str
    """Empty if there is a `reason`."""
    span: str = ""
    """Range of these letters in the record, from 1, with both ends, as in `samtools faidx`: `1-1000`. Empty: all."""
    reason: str = ""
    """Why the record cannot be used."""


class _Header(bytes):
    """Distinguishes a header from letters."""


def sequences(
    stream: BinaryIO,
    limit: int,
    window: int | None = None,
    upper: bool = False,
    start: int = 0,
    end: int | None = None,
) -> Iterator[Sequence]:
    """The records that begin in the bytes `start` to `end` of a stream; ranges that cover a file yield each once.

    Args:
        stream: seekable if `start` is not 0.
        limit: most letters of a sequence (or a window); a longer one is skipped without being held.
        window: cut sequences into so many letters each, the last one shorter.
        upper: lower-case letters become capitals.
        end: None for the end of the stream.
    """
    record: _Record | None = None
    number = 0
    for part in _parts(stream, start, end):
        if isinstance(part, _Header):
            if record:
                yield from record.close()
            number += 1
            record = _Record(number, _text(part), limit, window, upper)
            continue
        if record is None:
            number += 1
            record = _Headless(number, "", limit, window, upper)
        yield from record.add(part)
    if record:
        yield from record.close()


def letters_of(stream: BinaryIO, number: int, first: int, last: int) -> tuple[str, str] | None:
    """Header and letters `first` to `last` (from 1, both included) of record `number`; None if it has fewer letters."""
    seen = position = 0
    header, held = "", []
    for part in _parts(stream, 0, None):
        if isinstance(part, _Header) or not seen:
            seen += 1
        if seen > number or position >= last:
            break
        if seen == number and isinstance(part, _Header):
            header = _text(part)
        elif seen == number:
            held.append(part[max(0, first - 1 - position) : max(0, last - position)])
            position += len(part)
    letters = b"".join(held)
    return (header, letters.decode("ascii", "replace")) if len(letters) == last - first + 1 > 0 else None


def identifier(header: str) -> str:
    """A header up to the first white space."""
    return (header.split(maxsplit=1) or [""])[0]


def region(header: str, span: str) -> str:
    """Name of a part of a sequence as in samtools: `chr1:1-1000`."""
    return f"{identifier(header)}:{span}" if span else identifier(header)


class _Record:
    """The letters of one record, yielded a window at a time."""

    def __init__(self, number: int, header: str, limit: int, window: int | None, upper: bool):
        self.number, self.header, self.limit, self.window, self.upper = number, header, limit, window, upper
        self.held: list[bytes] = []
        self.size = 0
        """Letters after those in `given`, held or not."""
        self.given = 0
        """Letters in earlier windows."""

    def add(self, letters: bytes) -> Iterator[Sequence]:
        """Adds letters, without white space; yields full windows."""
        self.held.append(letters)
        self.size += len(letters)
        if self.window is not None and self.size > self.window:
            data = b"".join(self.held)
            whole = (len(data) - 1) // self.window * self.window  # at least one letter remains for the last window
            for begin in range(0, whole, self.window):
                yield self._of(data[begin : begin + self.window])
            self.held, self.size = [data[whole:]], len(data) - whole
        elif self.size > self.limit:
            self.held.clear()

    def close(self) -> Iterator[Sequence]:
        """Yields the rest, or the reason why there is none."""
        if self.size > self.limit:
            long = f"the sequence has {self.size:,} letters, more than the {self.limit:,} of maximum_record_bytes"
            yield self._bad(f"{long}; the source's `letters_per_document` cuts it into documents")
        elif not self.size:
            yield self._bad("the sequence is empty")
        else:
            yield self._of(b"".join(self.held))

    def _of(self, data: bytes) -> Sequence:
        odd = data.translate(None, LETTERS)
        first, self.given = self.given + 1, self.given + len(data)
        if odd:
            place = first + data.index(odd[:1])
            found = ascii(odd[:1].decode("latin-1"))
            return self._bad(f"letter {place:,} is {found}; a sequence has letters, '*' and '-'")
        letters = (data.upper() if self.upper else data).decode("ascii")
        whole = self.window is None or (first == 1 and not self.size > len(data))
        return Sequence(self.number, self.header, letters, "" if whole else f"{first}-{self.given}")

    def _bad(self, reason: str) -> Sequence:
        name = identifier(self.header)[:60]
        return Sequence(self.number, self.header, "", reason=f"{name}: {reason}" if name else reason)


class _Headless(_Record):
    """Text before the first `>`."""

    def add(self, letters: bytes) -> Iterator[Sequence]:
        yield from ()

    def close(self) -> Iterator[Sequence]:
        yield self._bad("the text before the first line with `>` belongs to no record; is this FASTA?")


def _text(header: bytes) -> str:
    return " ".join(header.decode("utf-8", "backslashreplace").split())


def _parts(stream: BinaryIO, start: int, end: int | None) -> Iterator[bytes]:
    """Headers, and between them letters as they are read, without white space."""
    read: Callable[[int], bytes] = reader(stream)
    position = max(0, start - 1)  # the byte before shows whether a line begins at `start`
    if position:
        stream.seek(position)
    skipping, at_line_start = start > 0, start == 0
    header: bytes | None = None
    while block := read(BLOCK):
        at = len(_MARK) if position == 0 and block.startswith(_MARK) else 0
        while at < len(block):
            if header is not None:
                found = _LINE_END.search(block, at)
                header = (header + block[at : found.start() if found else len(block)])[:HEADER_BYTES]
                if not found:
                    break
                yield _Header(header)
                header, at = None, found.start()
                continue
            begin = at if at_line_start and block[at : at + 1] == b">" else _next(block, at)
            at_line_start = False
            if not skipping and (letters := block[at:begin].translate(None, SPACE)):
                yield letters
            if begin == len(block):
                break
            if end is not None and position + begin >= end:
                return
            skipping, header, at = False, b"", begin + 1
        at_line_start = header is None and block[-1:] in (b"\r", b"\n")
        position += len(block)
        if skipping and end is not None and position >= end:
            return
    if header is not None:
        yield _Header(header)


def _next(block: bytes, at: int) -> int:
    """Position of the next header's `>`, the block's length if there is none."""
    found = _HEADER.search(block, at)
    return found.start() + 1 if found else len(block)
