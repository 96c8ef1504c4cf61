"""Lines of a stream, or of a range of it, in bounded memory."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterator
from typing import BinaryIO

BLOCK, TAIL = 4 << 20, 64 << 10
"""Bytes that are read at a time; and at first behind the end of a range."""


def reader(stream: BinaryIO) -> Callable[[int], bytes]:
    """Reads up to so many bytes, none at the end.

    Of a damaged compressed file `read1` gives what comes before the damage; `read` would lose a block of it.
    """
    return stream.read1 if isinstance(stream, gzip.GzipFile) else stream.read


class TooLong(int):
    """Stands for a line that is longer than allowed: its length in bytes."""


def lines(stream: BinaryIO, limit: int, start: int = 0, end: int | None = None) -> Iterator[bytes | TooLong]:
    r"""The lines that begin in the bytes `start` to `end` of a stream, without their `\n`.

    So ranges that cover a file give each of its lines once. A line longer than `limit` bytes is read over, not held.

    Args:
        stream: seekable if `start` is not 0.
        end: None for the stream's own.
    """
    read = reader(stream)
    begin, block = start, b""
    if start:
        found = _first_line(stream, start, end)
        if found is None:
            return
        begin, block = found
    else:
        block = read(BLOCK if end is None else max(1, min(BLOCK, end)))
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
        # Behind the end only the rest of a line is wanted: little at first, more if that is not all of it.
        wanted = BLOCK if end is None else end - position if position < end else max(TAIL, position - end)
        block = read(min(BLOCK, wanted))
        position += len(block)
    if size:
        yield TooLong(size) if size > limit else b"".join(held)


def _first_line(stream: BinaryIO, start: int, end: int | None) -> tuple[int, bytes] | None:
    """Where the first line begins at or behind `start`, and what was read from there on; None if that is not before
    `end`: a line that covers the range is not looked through to its end."""
    position = start - 1
    stream.seek(position)
    while end is None or position + 1 < end:
        block = stream.read(BLOCK)
        if not block:
            return None
        at = block.find(b"\n")
        if at >= 0:
            begin = position + at + 1
            if end is not None and begin >= end:
                return None
            return begin, block[at + 1 :] or stream.read(BLOCK)
        position += len(block)
    return None
