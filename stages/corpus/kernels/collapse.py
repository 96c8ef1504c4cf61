"""Texts with collapsed white space, and fingerprints of short texts."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Starts, kernel
from stages.corpus.kernels.character_classes import space_size
from stages.corpus.kernels.word_hashes import mix64

PLAIN, SPACE, PERHAPS = 0, 1, 2


def _classes() -> NDArray[np.int64]:
    """Whether a byte is white space, or may begin a white-space character of two or three bytes."""
    table = np.full(256, PLAIN, np.int64)
    table[[32, *range(9, 14), *range(28, 32)]] = SPACE
    table[[0xC2, 0xE1, 0xE2, 0xE3]] = PERHAPS
    return table


_CLASSES = _classes()


@kernel
def collapse_white_space(data: NDArray[np.uint8], offsets: Starts) -> tuple[NDArray[np.uint8], Starts]:
    """Texts as `" ".join(text.split())`: runs of white space become one space, none at the ends."""
    n = len(offsets) - 1
    out = np.empty(len(data) + 1, np.uint8)
    starts = np.zeros(n + 1, np.int64)
    k = np.int64(0)
    for text in range(n):
        i, end, begin = offsets[text], offsets[text + 1], k
        gap = np.int64(1)  # 1 after white space, and at the start
        while i < end:
            byte = data[i]
            space, size = _CLASSES[byte], 1
            if space == PERHAPS:
                wide = space_size(data, i, end)
                space, size = np.int64(wide > 0), max(wide, 1)
            # No branch on white space: it would be mispredicted at every word. A second space is overwritten.
            out[k] = np.uint8(32) if space else byte
            k += 1 - (space & gap)
            gap = space
            i += size
        if gap and k > begin:
            k -= 1
        starts[text + 1] = k
    return out[:k], starts


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
