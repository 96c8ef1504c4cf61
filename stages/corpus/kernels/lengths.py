"""Lengths of texts in characters."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Starts, kernel


@kernel
def characters(data: NDArray[np.uint8], offsets: Starts) -> NDArray[np.int64]:
    """Code points of each of n texts, int64[n]: bytes that do not continue another's sequence."""
    n = len(offsets) - 1
    out = np.empty(n, np.int64)
    for i in range(n):
        count = 0
        for j in range(offsets[i], offsets[i + 1]):
            count += (data[j] & np.uint8(0xC0)) != np.uint8(0x80)
        out[i] = count
    return out
