"""The endpoint's API key: generated once, in a file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from stages.store import ConfigError

PREFIX = "hw-"


def ensure_key(path: Path) -> tuple[str, bool]:
    """The key in `path`; generated (32 random bytes) if there is no such file. Returns (key, whether it is new).

    Raises:
        ConfigError: other users can read the file, or it contains no key.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return read_key(path), False
    key = PREFIX + secrets.token_urlsafe(32)
    with os.fdopen(handle, "w") as file:
        file.write(key + "\n")
    return key, True


def read_key(path: Path) -> str:
    """The key in `path`.

    Raises:
        ConfigError: there is no such file, other users can read it, or the key is too short to be safe.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_text().strip()
    except FileNotFoundError:
        raise ConfigError(f"there is no API key at {path}; `headwater up` creates it") from None
    if mode & 0o077:
        raise ConfigError(
            f"{path} contains the API key and has mode {mode:o}: other users can read it; `chmod 600 {path}`"
        )
    if len(key) < 16:
        raise ConfigError(f"{path} contains no API key; remove it, and the next start creates a new one")
    return key


def same_key(given: str, right: str) -> bool:
    """Compares two keys in constant time; hashing first hides the length."""
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(right.encode()).digest())
