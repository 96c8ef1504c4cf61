"""Which code points are word characters, and their lower case: one table, built once for each process."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import kernel

CODE_POINTS = 0x40000
"""Size of the table. No code point beyond it is a letter or a number (planes 4 to 16 hold tags and private use)."""
OTHER = 0x80
"""In `ascii_words`: a byte of a longer UTF-8 sequence."""


@lru_cache(maxsize=1)
def lower_words() -> NDArray[np.uint32]:
    r"""For each code point, uint32[0x40000]: its lower case if it is a word character, else 0.

    Word characters are those of the regular expression `\w`: letters, numbers, `_`. Lower case is simple: one code
    point for one, the first where `str.lower` gives two (`İ`); a final sigma is a sigma. Follows the Unicode version
    of this Python.
    """
    table = np.zeros(CODE_POINTS, np.uint32)
    for code in range(CODE_POINTS):
        character = chr(code)
        if character.isalnum():
            table[code] = code if character.islower() else ord(character.lower()[0])
    table[ord("_")] = ord("_")
    return table


@lru_cache(maxsize=1)
def ascii_words() -> NDArray[np.uint8]:
    """The same for bytes, uint8[256]: 0, the lower case, or `OTHER` for bytes that are not ASCII."""
    table = np.full(256, OTHER, np.uint8)
    table[:128] = lower_words()[:128]
    return table


@kernel
def decode(data: NDArray[np.uint8], place: int, end: int) -> tuple[np.uint32, int]:
    """The code point of a sequence of two to four bytes at `place`, and its length.

    A sequence that is cut off by `end`, or that begins with an invalid byte, is (0, 1), so that invalid UTF-8 is never
    read out of bounds.
    """
    first = np.uint32(data[place])
    if 0xC0 <= first < 0xE0 and place + 2 <= end:
        return ((first & np.uint32(0x1F)) << np.uint32(6)) | np.uint32(data[place + 1] & 0x3F), 2
    if 0xE0 <= first < 0xF0 and place + 3 <= end:
        middle = np.uint32(data[place + 1] & 0x3F) << np.uint32(6)
        return ((first & np.uint32(0x0F)) << np.uint32(12)) | middle | np.uint32(data[place + 2] & 0x3F), 3
    if 0xF0 <= first < 0xF8 and place + 4 <= end:
        high = ((first & np.uint32(0x07)) << np.uint32(18)) | (np.uint32(data[place + 1] & 0x3F) << np.uint32(12))
        return high | (np.uint32(data[place + 2] & 0x3F) << np.uint32(6)) | np.uint32(data[place + 3] & 0x3F), 4
    return np.uint32(0), 1
