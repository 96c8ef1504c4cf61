"""Sets of 64-bit hashes: sorted arrays, and how similar two of them are."""

from __future__ import annotations

import numpy as np

from stages.corpus.kernels import Hashes, Starts, kernel


@kernel
def sorted_sets(hashes: Hashes, starts: Starts) -> tuple[Hashes, Starts]:
    """Each list as a set: sorted, each hash once; in the form in which they came."""
    out = np.empty(len(hashes), np.uint64)
    set_starts = np.zeros(len(starts), np.int64)
    k = 0
    for i in range(len(starts) - 1):
        found = np.sort(hashes[starts[i] : starts[i + 1]])
        for j in range(len(found)):
            if j == 0 or found[j] != found[j - 1]:
                out[k] = found[j]
                k += 1
        set_starts[i + 1] = k
    return out[:k].copy(), set_starts


@kernel
def jaccard(first: Hashes, second: Hashes, least: float) -> float:
    """Jaccard similarity of two sets given as sorted arrays; 0 as soon as it is sure to be below `least`.

    Two empty sets are equal.
    """
    a, b = len(first), len(second)
    if a + b == 0:
        return 1.0
    # Of a + b elements so many may be in one set only: then common / (a + b - common) is `least`.
    allowed = (a + b) * (1.0 - least) / (1.0 + least) + 1e-9
    i = j = common = 0
    while i < a and j < b:
        x, y = first[i], second[j]
        i += x <= y
        j += y <= x
        common += x == y
        if i + j - 2 * common > allowed:
            return 0.0
    value = common / (a + b - common)
    return value if value >= least else 0.0
