"""Hashes of files. Bytes are hashed once a machine: a large file's hash is remembered by path, size, time and inode."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

log = logging.getLogger(__name__)

REMEMBERED_FROM = 16 << 20
"""Bytes from which a file's hash is worth remembering; smaller files are hashed every time."""


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a local file, read now."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def sha256_stream(stream: BinaryIO) -> str:
    """Hex sha256 of the rest of a stream, which is closed."""
    total = hashlib.sha256()
    with stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()


def remembered_sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a local file; a large one that has not changed since it was last hashed here is not read again."""
    stat = os.stat(path)
    if stat.st_size < REMEMBERED_FROM:
        return sha256_file(path)
    key = f"{os.fspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
    memory = cache_folder() / "sha256" / hashlib.sha256(key.encode()).hexdigest()
    if memory.exists() and len(known := memory.read_text()) == 64:
        return known
    digest = sha256_file(path)
    # A file that changed a moment ago may change again within one tick of its clock: not remembered.
    if time.time() - stat.st_mtime > 2 and os.stat(path).st_mtime_ns == stat.st_mtime_ns:
        aside = memory.with_name(f".{memory.name}.{os.getpid()}")
        try:
            memory.parent.mkdir(parents=True, exist_ok=True)
            aside.write_text(digest)
            aside.replace(memory)
        except OSError as error:  # costs time the next time, and nothing else
            log.info("the hash of %s is not remembered: %s", path, error)
            with suppress(OSError):
                aside.unlink(missing_ok=True)
    return digest


def cache_folder() -> Path:
    """Where this user keeps what can be made or fetched again: `$XDG_CACHE_HOME/headwater`, else `~/.cache/headwater`.

    Never below a shared folder such as /tmp, where somebody else could lay files under names that we trust.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "headwater"
