"""Reading a slot's memory once: checksums, and the files on disk, made in one pass."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import xxhash

from stages.training.checkpoint.format import CheckpointFile

CHUNK = 1 << 20
"""Bytes that are hashed and written together: they stay in the processor's cache between the two."""


def write_file(content: memoryview, name: str, path: Path | None) -> CheckpointFile:
    """Computes a file's checksums, and writes it and syncs it to disk.

    Args:
        content: all of it.
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
        for start in range(0, len(content), CHUNK):
            chunk = content[start : start + CHUNK]
            fast.update(chunk)
            strong.update(chunk)
            while chunk:
                chunk = chunk[os.write(handle, chunk) :]
        os.fsync(handle)
    finally:
        os.close(handle)
    return CheckpointFile(path=name, bytes=len(content), sha256=strong.hexdigest(), xxh3=fast.hexdigest())
