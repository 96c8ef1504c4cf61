"""Hashes of files. A large file's hash is cached on this machine by path, size, mtime and inode."""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import suppress
from pathlib import Path

from stages.store.private_files import make_private_folder

log = logging.getLogger(__name__)

MIN_CACHED_BYTES = 16 << 20
"""Hashes of files from this size on are cached; smaller files are hashed every time."""


def sha256_file(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a local file; never cached."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def cached_sha256(path: str | os.PathLike[str]) -> str:
    """Hex sha256 of a local file; from the cache if the file is large and unchanged since it was last hashed here."""
    stat = os.stat(path)
    if stat.st_size < MIN_CACHED_BYTES:
        return sha256_file(path)
    key = f"{os.fspath(path)}\0{stat.st_size}\0{stat.st_mtime_ns}\0{stat.st_ino}"
    entry = cache_folder() / "sha256" / hashlib.sha256(key.encode()).hexdigest()
    if entry.exists() and len(known := entry.read_text()) == 64:
        return known
    digest = sha256_file(path)
    # A file that changed a moment ago may change again within one tick of the file system's clock: not cached.
    if time.time() - stat.st_mtime > 2 and os.stat(path).st_mtime_ns == stat.st_mtime_ns:
        temporary = entry.with_name(f".{entry.name}.{os.getpid()}")
        try:
            make_private_folder(entry.parent)
            temporary.write_text(digest)
            temporary.replace(entry)
        except OSError as error:  # only costs time: the file is hashed again next time
            log.info("cannot cache the hash of %s: %s", path, error)
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
    return digest


def cache_folder() -> Path:
    """This user's folder for data that can be rebuilt: `$XDG_CACHE_HOME/headwater`, else `~/.cache/headwater`.

    Never below a shared folder such as /tmp, where another user could put files under names that we trust.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return Path(base) / "headwater"
