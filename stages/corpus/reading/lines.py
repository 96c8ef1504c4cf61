"""Lines of a stream, or of a range of it, in bounded memory."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import BinaryIO

BLOCK, FIRST = 4 << 20, 64 << 10
"""Bytes that are read at a time; and at first, at a range's beginning and beyond its end: who wants a few lines reads
little."""


def reader(stream: BinaryIO) -> Callable[[int], bytes]:
    """A function that reads up to so many bytes; none at the end.

    For a damaged compressed file `read1` returns the data before the damage; `read` would lose a block of it.
    """
    return stream.read1 if isinstance(stream, gzip.GzipFile) else stream.read


class TooLong(int):
    """Returned instead of a line that is longer than allowed: its length in bytes."""


def lines(stream: BinaryIO, limit: int, start: int = 0, end: int | None = None) -> Iterator[bytes | TooLong]:
    r"""The lines that begin in the bytes `start` to `end` of a stream, without their `\n`.

    So ranges that cover a file yield each line once. A line longer than `limit` bytes is skipped without being held.

    Args:
        stream: seekable if `start` is not 0.
        end: None for the end of the stream.
    """
    read = reader(stream)
    size_read = FIRST
    begin, block = start, b""
    if start:
        found = _first_line(stream, start, end)
        if found is None:
            return
        begin, block = found
    else:
        block = read(size_read if end is None else max(1, min(size_read, end)))
    position = begin + len(block)  # of the stream
    held: list[bytes] = []
    size = 0
    while block and (end is None or begin < end):
        parts = block.split(b"\n")
        for part in parts[:-1]:
            length = size + len(part)
            if length > limit:
                yield TooLong(length)
            else:
                yield b"".join([*held, part]) if held else part
            held, size = [], 0
            begin += length + 1
            if end is not None and begin >= end:
                return
        rest = parts[-1]
        size += len(rest)
        if size > limit:
            held = []
        elif rest:
            held.append(rest)
        # Beyond the end only the rest of a line is needed: a little is read at first, more if that is not enough.
        size_read = min(2 * size_read, BLOCK)
        wanted = BLOCK if end is None else end - position if position < end else max(FIRST, position - end)
        block = read(min(size_read, wanted))
        position += len(block)
    if size:
        yield TooLong(size) if size > limit else b"".join(held)


def _first_line(stream: BinaryIO, start: int, end: int | None) -> tuple[int, bytes] | None:
    """Position of the first line that begins at or after `start`, and the bytes read from there on; None if that is not
    before `end`: a line that covers the whole range is not read to its end."""
    position = start - 1
    size_read = FIRST
    stream.seek(position)
    while end is None or position + 1 < end:
        block = stream.read(size_read)
        size_read = min(2 * size_read, BLOCK)
        if not block:
            return None
        at = block.find(b"\n")
        if at >= 0:
            begin = position + at + 1
            if end is not None and begin >= end:
                return None
            return begin, block[at + 1 :] or stream.read(FIRST)
        position += len(block)
    return None
