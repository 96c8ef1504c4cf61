"""Reading a slot's memory once: checksums, and the files on disk, made in one pass."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from contextlib import suppress
from pathlib import Path

import xxhash

from stages.training.checkpoint.format import CheckpointFile

CHUNK = 1 << 20
"""Bytes that are hashed and written together: they stay in the processor's cache between the two."""
_PAGE = 4096
"""Writes past the page cache are in multiples of it, from addresses that are."""
_DIRECT = getattr(os, "O_DIRECT", 0)


def write_file(content: memoryview, name: str, path: Path | None) -> CheckpointFile:
    """Computes a file's checksums, and writes it and syncs it to disk.

    Whole pages go from the slot to the disk without a copy in the page cache, where the file system can do that: beside
    a training on two cores, copies in the page cache took four times the processor time of everything else here.

    Args:
        content: all of it; only what begins at a page's start can be written past the page cache.
        path: where; absent: only the XXH3 is computed.

    Raises:
        OSError: the disk is full or fails.
    """
    fast = xxhash.xxh3_128()
    if path is None:
        for start in range(0, len(content), CHUNK):
            fast.update(content[start : start + CHUNK])
        return CheckpointFile(path=name, bytes=len(content), xxh3=fast.hexdigest())
    strong = hashlib.sha256()
    path.unlink(missing_ok=True)  # never through a link, nor into a file that another process reads
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        if len(content) >= CHUNK:
            with suppress(OSError):  # a file system without it
                _bypass_page_cache(handle, True)
        for start in range(0, len(content), CHUNK):
            chunk = content[start : start + CHUNK]
            fast.update(chunk)
            strong.update(chunk)
            _write_all(handle, chunk)
        os.fsync(handle)
    finally:
        os.close(handle)
    return CheckpointFile(path=name, bytes=len(content), sha256=strong.hexdigest(), xxh3=fast.hexdigest())


def _write_all(handle: int, chunk: memoryview) -> None:
    if len(chunk) % _PAGE:  # the file's end
        _bypass_page_cache(handle, False)
    while chunk:
        try:
            written = os.write(handle, chunk)
        except OSError as error:
            if error.errno != errno.EINVAL or not fcntl.fcntl(handle, fcntl.F_GETFL) & _DIRECT:
                raise
            written = 0  # larger pages than ours, an address between pages, or the rest of a write that was cut short
            _bypass_page_cache(handle, False)
        chunk = chunk[written:]


def _bypass_page_cache(handle: int, yes: bool) -> None:
    flags = fcntl.fcntl(handle, fcntl.F_GETFL)
    fcntl.fcntl(handle, fcntl.F_SETFL, flags | _DIRECT if yes else flags & ~_DIRECT)
