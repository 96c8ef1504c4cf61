"""MinHash keys against plain Python, and against what probability says of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.config import DedupConfig
from stages.corpus.kernels.minhash import LANES, NO_KEY, band_hashes, hash_functions, minima
from tests.support import examples

M64 = (1 << 64) - 1
lists_of_grams = st.lists(st.lists(st.integers(0, M64), max_size=12), max_size=5)


def plain_mix(x: int) -> int:
    x = ((x ^ (x >> 33)) * 0xFF51AFD7ED558CCD) & M64
    x = ((x ^ (x >> 33)) * 0xC4CEB9FE1A85EC53) & M64
    return x ^ (x >> 33)


def plain_keys(grams: list[int], bands: int, rows: int, seed: int) -> list[int]:
    multipliers, masks = (values.tolist() for values in hash_functions(bands * rows, seed))
    if not grams:
        return [NO_KEY] * bands
    keys = []
    for band in range(bands):
        key = band + 1
        for row in range(rows):
            k = band * rows + row
            least = min(((multipliers[k] * (gram >> 32)) & 0xFFFFFFFF) ^ masks[k] for gram in grams)
            key = (plain_mix(key ^ least) + row) & M64
        keys.append(key)
    return keys


def flat(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    values = np.array([value for one in lists for value in one], np.uint64)
    return values, np.cumsum([0, *map(len, lists)]).astype(np.int64)


@examples(50)
@given(lists_of_grams, st.sampled_from([(1, 1), (3, 2), (25, 5), (7, 9)]), st.integers(0, 3))
def test_keys_are_those_of_plain_python(lists: list[list[int]], shape: tuple[int, int], seed: int) -> None:
    keys = band_hashes(*flat(lists), *shape, seed)
    assert keys.shape == (shape[0], len(lists))
    assert keys.T.tolist() == [plain_keys(grams, *shape, seed) for grams in lists]


def pairs_of_sets(pairs: int, size: int, shared: int, seed: int) -> tuple[np.ndarray, np.ndarray, float]:
    """Sets of `size` random elements, two and two with `shared` in common; their similarity."""
    values = np.random.default_rng(seed).integers(0, 2**64, (pairs, 2 * size - shared), np.uint64)
    grams = np.concatenate([values[:, :size], values[:, -size:]], axis=1).reshape(-1)
    return grams, np.arange(0, len(grams) + 1, size), shared / (2 * size - shared)


@pytest.mark.parametrize(("size", "shared"), [(4, 2), (4, 3), (20, 9), (100, 46), (100, 82), (400, 360)])
def test_the_share_of_equal_minima_is_the_similarity(size: int, shared: int) -> None:
    """Without bias, and with the spread of independent functions: within five standard errors."""
    pairs, functions = 2000, 125
    grams, starts, s = pairs_of_sets(pairs, size, shared, 7)
    multipliers, masks = hash_functions(functions, 1)
    assert len(multipliers) % LANES == 0 and (multipliers % 2 == 1).all()
    least = np.empty((2 * pairs, len(masks)), np.uint32)
    for i in range(2 * pairs):
        minima(grams, starts[i], starts[i + 1], multipliers, masks, least[i])
    share = (least[::2, :functions] == least[1::2, :functions]).mean(axis=1)
    error = (s * (1 - s) / functions) ** 0.5
    assert abs(share.mean() - s) < 5 * error / pairs**0.5
    assert abs(share.std() / error - 1) < 5 / (2 * pairs) ** 0.5


@pytest.mark.parametrize(("size", "shared"), [(100, 82), (100, 67), (100, 33), (12, 10)])
def test_keys_agree_as_often_as_the_curve_says(size: int, shared: int) -> None:
    """3,000 pairs; within five standard errors."""
    pairs = 3000
    grams, starts, s = pairs_of_sets(pairs, size, shared, 3)
    keys = band_hashes(grams, starts, 25, 5, 1)
    agree = keys[:, ::2] == keys[:, 1::2]
    for found, expected, tries in (
        (agree.mean(), s**5, 25 * pairs),
        (agree.any(axis=0).mean(), 1 - (1 - s**5) ** 25, pairs),
    ):
        assert abs(found - expected) < 5 * (expected * (1 - expected) / tries) ** 0.5


def test_texts_without_words_have_the_key_that_never_matches() -> None:
    keys = band_hashes(np.array([5], np.uint64), np.array([0, 0, 1, 1]), 25, 5, 1)
    assert (keys[:, [0, 2]] == NO_KEY).all() and (keys[:, 1] != NO_KEY).all()


def test_bands_that_would_miss_pairs_are_refused() -> None:
    with pytest.raises(ValueError, match="14 bands of 8 find only 56%"):
        DedupConfig(bands=14, band_rows=8)
