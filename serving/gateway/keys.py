"""The endpoint's API key: generated once, in a file that only its owner can read."""

from __future__ import annotations

import hashlib
import hmac
from pathlib import Path

from stages.store.private_files import ensure_secret, read_secret

PREFIX = "hw-"
_WHAT = "API key"


def ensure_key(path: Path) -> tuple[str, bool]:
    """The key in `path`; generated (32 random bytes) if there is no such file. Returns (key, whether it is new).

    Raises:
        ConfigError: other users can read the file, or it contains no key.
    """
    return ensure_secret(path, _WHAT, PREFIX)


def read_key(path: Path) -> str:
    """The key in `path`.

    Raises:
        ConfigError: there is no such file, other users can read it, or the key is too short to be safe.
    """
    return read_secret(path, _WHAT)


def same_key(given: str, right: str) -> bool:
    """Compares two keys in constant time; hashing first hides the length."""
    return hmac.compare_digest(hashlib.sha256(given.encode()).digest(), hashlib.sha256(right.encode()).digest())
