"""Odd sketches: a bound on how far two sets differ that costs a few nanoseconds (Mitzenmacher, Pagh, Pham 2014).

Each element of a set turns over one bit of its sketch, chosen by its hash. Elements that two sets share cancel out, so
each bit in which their sketches differ stands for at least one element that only one of them has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Hashes, Starts, kernel

WORDS = 32
"""64-bit words a sketch: 2,048 bits tell sets apart that differ in up to about 2,000 elements."""


@kernel
def odd_sketches(sets: Hashes, starts: Starts) -> NDArray[np.uint64]:
    """uint64[n, WORDS] of n sets."""
    n = len(starts) - 1
    out = np.zeros((n, WORDS), np.uint64)
    for i in range(n):
        for j in range(starts[i], starts[i + 1]):
            bit = sets[j] >> np.uint64(53)
            out[i, bit >> np.uint64(6)] ^= np.uint64(1) << (bit & np.uint64(63))
    return out


@kernel
def least_difference(first: NDArray[np.uint64], second: NDArray[np.uint64]) -> int:
    """A number of elements in which the sets of two sketches differ at least."""
    total = np.uint64(0)
    for k in range(WORDS):
        x = first[k] ^ second[k]
        x -= (x >> np.uint64(1)) & np.uint64(0x5555555555555555)
        x = (x & np.uint64(0x3333333333333333)) + ((x >> np.uint64(2)) & np.uint64(0x3333333333333333))
        x = (x + (x >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
        total += (x * np.uint64(0x0101010101010101)) >> np.uint64(56)
    return int(total)
