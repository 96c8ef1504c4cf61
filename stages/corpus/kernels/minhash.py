"""MinHash in bands: one 64-bit key a band; two texts that agree in a key are worth comparing.

For each of bands x rows hash functions the least hash of a text's n-grams is taken; two texts agree in it with the
probability of their Jaccard similarity s. A band's key stands for the minima of its rows, so that at least one of b
keys of r rows agrees with probability 1 - (1 - s^r)^b (Broder 1997; Leskovec, Rajaraman, Ullman, Mining of Massive
Datasets, section 3.4).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from stages.corpus.kernels import Hashes, Starts, kernel
from stages.corpus.kernels.words import mix64

NO_KEY = 0xFFFFFFFFFFFFFFFF
"""The key of a text without words, and of one that takes no part. Never means a match."""


def band_hashes(grams: Hashes, starts: Starts, bands: int, rows: int, seed: int) -> NDArray[np.uint64]:
    """Keys of texts, uint64[bands, n].

    Args:
        grams, starts: the n-grams of n texts, see `ngram_hashes`; repeats do not matter.
        seed: of the hash functions.
    """
    draw = np.random.Generator(np.random.PCG64(seed))
    count = -(-bands * rows // 16) * 16  # whole vectors
    multipliers = draw.integers(0, 2**32, count, np.uint64).astype(np.uint32) | np.uint32(1)
    summands = draw.integers(0, 2**32, count, np.uint64).astype(np.uint32)
    return _band_hashes(grams, starts, bands, rows, multipliers, summands)


@kernel
def _minima(
    grams: Hashes,
    first: int,
    last: int,
    multipliers: NDArray[np.uint32],
    summands: NDArray[np.uint32],
    least: NDArray[np.uint32],
) -> None:
    """The least value of each hash function over n-grams `first` to `last`.

    The hash of 32 bits x is `a x + b`, its high half mixed into the low one: products of 32 bits are what the vector
    units have. 32 functions at a time stay in registers.
    """
    for block in range(0, len(least), 16):
        for k in range(block, block + 16):
            least[k] = np.uint32(0xFFFFFFFF)
    for j in range(first, last):
        x = np.uint32(grams[j] >> np.uint64(32)) ^ np.uint32(grams[j] & np.uint64(0xFFFFFFFF))
        for k in range(len(least)):
            value = np.uint32(multipliers[k] * x) + summands[k]
            value = np.uint32(value ^ (value >> np.uint32(15)))
            value = np.uint32(value * np.uint32(0x2C1B3C6D))
            least[k] = min(least[k], value)


@kernel
def _band_hashes(
    grams: Hashes,
    starts: Starts,
    bands: int,
    rows: int,
    multipliers: NDArray[np.uint32],
    summands: NDArray[np.uint32],
) -> NDArray[np.uint64]:
    n = len(starts) - 1
    keys = np.empty((bands, n), np.uint64)
    least = np.empty(len(multipliers), np.uint32)
    for text in range(n):
        if starts[text] == starts[text + 1]:
            keys[:, text] = np.uint64(NO_KEY)
            continue
        _minima(grams, starts[text], starts[text + 1], multipliers, summands, least)
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(rows):
                key = mix64(key ^ np.uint64(least[band * rows + row])) + np.uint64(row)
            keys[band, text] = key if key != np.uint64(NO_KEY) else np.uint64(0)
    return keys
