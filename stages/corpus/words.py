"""The hash that names a text."""

from __future__ import annotations

import hashlib


def text_hash(text: str) -> str:
    """128-bit BLAKE2b of the text's UTF-8; 32 hex digits."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
