"""No pattern in the order: the next sample is unpredictable, by chi-squared tests on neighbours.

Seeds are fixed, so each test has one outcome for ever. A fair order fails one of them with the probability `ALPHA`;
the last tests hold the same statistics against orders that do have a pattern, which they must detect.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi2

from stages.tokens.feistel import permute
from stages.tokens.mixture import BLOCK
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.table import ShardTable

ALPHA = 1e-4
ROWS, SHARDS = 512, 8
SEEDS = range(6)


def p_value(observed: NDArray[np.int64], expected: NDArray[np.float64] | float, freedom: int | None = None) -> float:
    """Of Pearson's chi-squared; `freedom` where it is not the number of cells less one."""
    expected = np.broadcast_to(expected, observed.shape)
    assert expected.min() >= 5, "too few cases a cell for the test to mean anything"
    statistic = float(((observed - expected) ** 2 / expected).sum())
    return float(chi2.sf(statistic, observed.size - 1 if freedom is None else freedom))


def epochs(seed: int, count: int, window: int = SHARDS) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(shard, row) of `count` epochs of one source of equal shards: both int64 [count, samples]."""
    shards = ShardTable(("a",), (np.full(SHARDS, ROWS),))
    order = Order(shards, "d", seed, [Phase(ROWS * SHARDS * count)], window)
    found = order.at(np.arange(order.samples))
    return found.shard.reshape(count, -1), found.row.reshape(count, -1)


def steps_p(place: NDArray[np.int64], n: int, bins: int = 64) -> float:
    """Differences of successive places, modulo n: each of 1 to n - 1 is as likely as any other."""
    step = np.diff(place, axis=-1).ravel() % n
    assert step.min() > 0
    edges = np.arange(bins + 1) * (n - 1) // bins + 1
    observed = np.histogram(step, bins=edges)[0]
    return p_value(observed, np.diff(edges) / (n - 1) * step.size)


def neighbours_p(label: NDArray[np.int64], sizes: NDArray[np.int64]) -> float:
    """Labels of neighbours: pairs come as often as in a random order of `sizes` things with each label."""
    pairs = label[..., :-1] * len(sizes) + label[..., 1:]
    observed = np.bincount(pairs.ravel(), minlength=len(sizes) ** 2).reshape(len(sizes), -1)
    n = int(sizes.sum())
    share = (np.outer(sizes, sizes) - np.diag(sizes)) / (n * (n - 1))
    return p_value(observed, share * pairs.size)


def table_p(first: NDArray[np.int64], second: NDArray[np.int64], n: int, bins: int = 16) -> float:
    """Two places of the same things, cut into equal parts: what is early in one is anywhere in the other."""
    cell = first * bins // n * bins + second * bins // n
    observed = np.bincount(cell.ravel(), minlength=bins * bins)
    return p_value(observed, first.size / bins**2, (bins - 1) ** 2)


def ranks(shard: NDArray[np.int64], row: NDArray[np.int64]) -> NDArray[np.int64]:
    """Places in the source, were it read from the first shard to the last."""
    return shard * ROWS + row


@pytest.mark.parametrize("seed", SEEDS)
def test_successive_samples_are_any_distance_apart(seed: int) -> None:
    assert steps_p(ranks(*epochs(seed, 4)), ROWS * SHARDS) > ALPHA


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("window", [2, SHARDS])
def test_neighbours_are_of_any_shard_of_the_window(seed: int, window: int) -> None:
    shard, _ = epochs(seed, 6, window)
    of_window = shard.reshape(-1, window * ROWS)
    # The shards of a window, numbered by their place among those: which shards these are is another test's question.
    label = np.stack([np.unique(line, return_inverse=True)[1] for line in of_window])
    assert neighbours_p(label, np.full(window, ROWS)) > ALPHA


@pytest.mark.parametrize("seed", SEEDS)
def test_successive_epochs_are_independent(seed: int) -> None:
    place = np.argsort(ranks(*epochs(seed, 4)), axis=1)  # when each sample comes, epoch by epoch
    for first, second in itertools.pairwise(place):
        assert table_p(first, second, ROWS * SHARDS) > ALPHA


@pytest.mark.parametrize("seed", SEEDS)
def test_the_position_of_a_sample_is_independent_of_its_shard_and_row(seed: int) -> None:
    found = ranks(*epochs(seed, 4))
    when = np.broadcast_to(np.arange(found.shape[1]), found.shape)
    assert table_p(when, found, ROWS * SHARDS) > ALPHA


def test_shards_share_a_window_with_any_other() -> None:
    shards = ShardTable(("a",), (np.full(6, 4),))
    order = Order(shards, "d", 1, [Phase(24 * 3000)], 2)
    windows = order.at(np.arange(order.samples)).shard.reshape(-1, 8)
    low, high = windows.min(axis=1), windows.max(axis=1)
    assert (low < high).all()
    observed = np.bincount(low * 6 + high, minlength=36).reshape(6, 6)[np.triu_indices(6, 1)]
    # Three disjoint pairs an epoch: less freedom than 15 cells have, so this is on the safe side of the test.
    assert p_value(observed, len(windows) / 15) > ALPHA


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("weights", [{"a": 1, "b": 1}, {"a": 6, "b": 3, "c": 1}])
def test_sources_follow_each_other_at_random(seed: int, weights: dict[str, float]) -> None:
    shards = ShardTable(tuple(weights), tuple(np.full(4, ROWS) for _ in weights))
    order = Order(shards, "d", seed, [Phase(BLOCK * 60, weights=weights)], 2)
    source = order.at(np.arange(order.samples)).source.reshape(-1, BLOCK)
    assert neighbours_p(source, np.bincount(source[0])) > ALPHA


def test_streams_are_independent() -> None:
    """Two streams of equal size go through their parts, and through their sources, independently."""
    shards = ShardTable(("a", "b"), (np.full(16, 256), np.full(16, 256)))
    order = Order(shards, "d", 1, [Phase(BLOCK * 64 * 2)], 8, streams=2)
    source = order.at(np.arange(order.samples)).source.reshape(-1, 2)
    both = np.bincount(source[:, 0] * 2 + source[:, 1], minlength=4)
    assert p_value(both, len(source) / 4, 1) > ALPHA


def places(n: int, keys: int = 50_000) -> NDArray[np.int64]:
    """How often each of n things lands at each place under so many keys: int64 [n, n]."""
    found = permute(np.arange(n)[None], n, np.arange(keys, dtype=np.uint64)[:, None])
    return np.stack([np.bincount(column, minlength=n) for column in found.T])


@pytest.mark.parametrize("n", [2, 3, 4, 8, 12, 16])
def test_in_a_small_window_everything_lands_anywhere(n: int) -> None:
    assert p_value(places(n), 50_000 / n, (n - 1) ** 2) > ALPHA


@pytest.mark.parametrize("n", [5, 6, 7])
def test_the_smallest_windows_are_fair_within_an_eighth(n: int) -> None:
    """Three bits are few for a Feistel network, and cycle walking drops some of the eight values."""
    assert np.abs(places(n) / (50_000 / n) - 1).max() < 1 / 8


def test_the_statistics_detect_patterns() -> None:
    """A shuffle within blocks of 256, a stride, and a read of two shards in turn are not orders like ours."""
    n, generator = ROWS * SHARDS, np.random.default_rng(0)
    blocks = (np.arange(n).reshape(-1, 256)[:, generator.permutation(256)]).ravel()
    stride = np.arange(n) * 1_237 % n
    for place in (blocks, stride):
        assert steps_p(place[None], n) < 1e-12
    assert table_p(np.arange(n), blocks, n) < 1e-12
    assert neighbours_p(np.arange(n)[None] % SHARDS, np.full(SHARDS, ROWS)) < 1e-12
    fair = generator.permutation(n)
    assert steps_p(fair[None], n) > ALPHA and table_p(np.arange(n), fair, n) > ALPHA
    assert neighbours_p(fair[None] // ROWS, np.full(SHARDS, ROWS)) > ALPHA
