"""The 256 characters that represent bytes in a byte-level tokenizer's vocabulary."""

from __future__ import annotations

from functools import cache


@cache
def byte_characters() -> tuple[str, ...]:
    """The character of each byte: GPT-2's `bytes_to_unicode`.

    Bytes that are printable in Latin-1 are their own characters; the others, which a vocabulary file cannot contain,
    are mapped to the characters from 256 on, in order.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    found, beyond = [], 256
    for byte in range(256):
        found.append(chr(byte if byte in printable else beyond))
        beyond += byte not in printable
    return tuple(found)
