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
from stages.corpus.kernels.word_hashes import mix64

NO_KEY = 0xFFFFFFFFFFFFFFFF
"""The key of a text without words, and of an excluded text. Never a match."""
LANES = 16
"""The number of hash functions is padded to whole vectors of 32-bit numbers."""
_HIGH = np.uint64(32)


def band_hashes(grams: Hashes, starts: Starts, bands: int, rows: int, seed: int) -> NDArray[np.uint64]:
    """Keys of texts, uint64[bands, n].

    Args:
        grams, starts: the n-grams of n texts, see `ngram_hashes`; repeats do not matter.
        seed: of the hash functions.
    """
    return _band_hashes(grams, starts, bands, rows, *hash_functions(bands * rows, seed))


def hash_functions(count: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd multipliers and masks of `count` functions, padded to a multiple of LANES."""
    draw = np.random.Generator(np.random.PCG64(seed))
    padded = -(-count // LANES) * LANES
    multipliers = draw.integers(0, 2**32, padded, np.uint64).astype(np.uint32) | np.uint32(1)
    masks = draw.integers(0, 2**32, padded, np.uint64).astype(np.uint32)
    return multipliers, masks


@kernel
def minima(
    grams: Hashes,
    first: int,
    last: int,
    multipliers: NDArray[np.uint32],
    masks: NDArray[np.uint32],
    least: NDArray[np.uint32],
) -> None:
    """The least value of each hash function over n-grams `first` to `last`.

    A function maps the n-gram's high 32 bits x to `(a x) ^ b`: one 32-bit product, which vector units have. The mask
    gives each function an order of its own; `a x + b`, which only rotates the order, is biased towards elements after
    a gap: for sets of four elements it agrees in 0.43 of cases instead of 0.33. Four n-grams are processed at a time,
    so that `least` is loaded and stored once for four.
    """
    for k in range(len(least)):
        least[k] = np.uint32(0xFFFFFFFF)
    j = first
    while j + 4 <= last:
        x0, x1 = np.uint32(grams[j] >> _HIGH), np.uint32(grams[j + 1] >> _HIGH)
        x2, x3 = np.uint32(grams[j + 2] >> _HIGH), np.uint32(grams[j + 3] >> _HIGH)
        for k in range(len(least)):
            a, b = multipliers[k], masks[k]
            low = min(np.uint32(a * x0) ^ b, np.uint32(a * x1) ^ b)
            high = min(np.uint32(a * x2) ^ b, np.uint32(a * x3) ^ b)
            least[k] = min(least[k], min(low, high))
        j += 4
    while j < last:
        x0 = np.uint32(grams[j] >> _HIGH)
        for k in range(len(least)):
            least[k] = min(least[k], np.uint32(multipliers[k] * x0) ^ masks[k])
        j += 1


@kernel
def _band_hashes(
    grams: Hashes, starts: Starts, bands: int, rows: int, multipliers: NDArray[np.uint32], masks: NDArray[np.uint32]
) -> NDArray[np.uint64]:
    n = len(starts) - 1
    keys = np.empty((bands, n), np.uint64)
    least = np.empty(len(multipliers), np.uint32)
    for text in range(n):
        if starts[text] == starts[text + 1]:
            keys[:, text] = np.uint64(NO_KEY)
            continue
        minima(grams, starts[text], starts[text + 1], multipliers, masks, least)
        for band in range(bands):
            key = np.uint64(band + 1)
            for row in range(rows):
                key = mix64(key ^ np.uint64(least[band * rows + row])) + np.uint64(row)
            keys[band, text] = key if key != np.uint64(NO_KEY) else np.uint64(0)
    return keys
