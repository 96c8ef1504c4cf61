"""The endpoint's API key: made once, kept in a file that only its owner can read."""

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
    """The key in `path`, made on the first call (32 random bytes). Returns (key, whether it was made now).

    Raises:
        ConfigError: the file can be read by others, or holds no key.
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
        ConfigError: there is none, it can be read by others, or it is too short to be safe.
    """
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
        key = path.read_text().strip()
    except FileNotFoundError:
        raise ConfigError(f"there is no API key at {path}; `headwater up` makes one") from None
    if mode & 0o077:
        raise ConfigError(f"{path} holds the API key and has mode {mode:o}: others can read it; `chmod 600 {path}`")
    if len(key) < 16:
        raise ConfigError(f"{path} holds no API key; remove it and a new one is made at the next start")
    return key


def same_key(given: str, right: str) -> bool:
    """Compares in constant time; hashing first hides the length."""
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(right.encode()).digest())
