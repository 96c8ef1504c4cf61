"""Texts with their white space made plain, and fingerprints of short texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Starts, kernel
from stages.corpus.kernels.words import mix64


@kernel
def collapsed(data: NDArray[np.uint8], offsets: Starts) -> tuple[NDArray[np.uint8], Starts]:
    """Texts as `" ".join(text.split())` gives them: runs of white space as one space, none at the ends."""
    n = len(offsets) - 1
    out = np.empty(len(data) + 1, np.uint8)
    starts = np.zeros(n + 1, np.int64)
    k = 0
    for text in range(n):
        i, end, begin = offsets[text], offsets[text + 1], k
        gap = False
        while i < end:
            size = _white_space(data, i, end)
            if size:
                gap = k > begin
                i += size
                continue
            if gap:
                out[k] = 32
                k += 1
                gap = False
            out[k] = data[i]
            k += 1
            i += 1
        starts[text + 1] = k
    return out[:k].copy(), starts


@kernel
def _white_space(data: NDArray[np.uint8], i: int, end: int) -> int:
    """Bytes of the white-space character (`str.isspace`) at data[i], 0 if there is none."""
    first = data[i]
    if first < 0x80:
        return 1 if first == 32 or 9 <= first <= 13 or 28 <= first <= 31 else 0
    if first == 0xC2:
        return 2 if i + 1 < end and (data[i + 1] == 0x85 or data[i + 1] == 0xA0) else 0
    if i + 2 >= end or not 0xE1 <= first <= 0xE3:
        return 0
    code = (np.int64(first) << 16) | (np.int64(data[i + 1]) << 8) | np.int64(data[i + 2])
    if code == 0xE19A80 or 0xE28080 <= code <= 0xE2808A or code == 0xE280A8 or code == 0xE280A9:
        return 3
    return 3 if code == 0xE280AF or code == 0xE2819F or code == 0xE38080 else 0


@kernel
def fingerprints(data: NDArray[np.uint8], offsets: Starts) -> NDArray[np.uint64]:
    """A 64-bit hash of each of n texts, uint64[n]: FNV-1a, mixed."""
    n = len(offsets) - 1
    out = np.empty(n, np.uint64)
    for text in range(n):
        h = np.uint64(0xCBF29CE484222325)
        for i in range(offsets[text], offsets[text + 1]):
            h = (h ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
        out[text] = mix64(h)
    return out
