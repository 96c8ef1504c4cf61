"""The order hits every row once an epoch, runs backwards, and depends on nothing that it must not depend on."""

import json
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.artifact import ConfigError
from stages.tokens.mixture import BLOCK, Mixture, largest_remainder
from stages.tokens.order import Order, Phase, epoch_samples
from stages.tokens.table import ShardTable

quick = settings(max_examples=40)


def table(*rows: list[int]) -> ShardTable:
    return ShardTable(tuple("abcdefgh"[: len(rows)]), tuple(np.array(r, dtype=np.int64) for r in rows))


@st.composite
def tables(draw: st.DrawFn) -> ShardTable:
    """Sources as the stage leaves them: full shards of one size and a shorter last one."""
    full = draw(st.sampled_from([4, 8]))
    return table(
        *([full] * draw(st.integers(1, 3)) + [draw(st.integers(1, full))] for _ in range(draw(st.integers(1, 3))))
    )


def everything(order: Order) -> list[tuple[int, int, int]]:
    return [tuple(t) for t in order.at(np.arange(order.samples)).triples.tolist()]


@quick
@given(tables(), st.sampled_from([1, 2, 4]), st.integers(1, 4), st.integers(1, 5), st.integers(0, 9), st.data())
def test_every_sample_once_an_epoch(
    shards: ShardTable, k: int, lanes: int, window: int, seed: int, data: st.DataObject
) -> None:
    source = data.draw(st.integers(0, len(shards.sources) - 1))
    n = int(shards.samples(k)[source])
    epochs = 3
    # whole epochs of every lane: lanes differ by a sample, so let all run for multiples of their least common length
    if n % lanes:
        lanes = 1
    order = Order(shards, "d", seed, [Phase(n * epochs, k, {shards.sources[source]: 1.0})], window, lanes)
    found = everything(order)
    expected = {
        (source, shard, row)
        for shard, rows in enumerate(shards.rows[source].tolist())
        for row in range(0, rows // k * k, k)
    }
    for epoch in range(epochs):
        assert sorted(found[epoch * n : (epoch + 1) * n]) == sorted(expected)
    assert shards.left_out(k)[source] == shards.rows[source].sum() - len(expected) * k


@settings(max_examples=20)
@given(tables(), st.integers(1, 3), st.integers(1, 4), st.integers(0, 99), st.data())
def test_positions_run_backwards(shards: ShardTable, lanes: int, window: int, seed: int, data: st.DataObject) -> None:
    phases = data.draw(
        st.lists(
            st.builds(
                Phase,
                st.integers(1, 40).map(lambda m: m * lanes),
                st.sampled_from([1, 2]),
                st.none()
                | st.fixed_dictionaries({name: st.sampled_from([0.0, 1.0, 2.5]) for name in shards.sources}).filter(
                    lambda w: sum(w.values()) > 0
                ),
            ),
            min_size=1,
            max_size=4,
        )
    )
    if any((shards.samples(phase.k) < lanes).any() for phase in phases):
        lanes, phases = 1, [Phase(phase.samples, 1, phase.weights) for phase in phases]
    order = Order(shards, "d", seed, phases, window, lanes)
    seen: dict[tuple[int, int, int], list[int]] = {}
    for position in range(order.samples):
        source, shard, row, k = order.at([position])
        assert k == order.k_at(position)
        for more in range(k):
            seen.setdefault((int(source[0]), int(shard[0]), int(row[0]) + more), []).append(position)
    for source, rows in enumerate(shards.rows):
        for shard, count in enumerate(rows.tolist()):
            for row in range(count):
                assert order.positions_of(source, shard, row).tolist() == seen.get((source, shard, row), [])


@quick
@given(tables(), st.integers(1, 3), st.integers(1, 60), st.integers(0, 60))
def test_run_length_and_calls_do_not_matter(shards: ShardTable, lanes: int, first: int, more: int) -> None:
    lanes = min(lanes, int(shards.samples().min()))
    short = Order(shards, "d", 5, [Phase(first * lanes)], 2, lanes)
    long = Order(shards, "d", 5, [Phase((first + more) * lanes), Phase(lanes * 7)], 2, lanes)
    assert everything(short) == everything(long)[: short.samples]
    one_by_one = [tuple(short.at([p]).triples[0].tolist()) for p in range(short.samples)]
    assert everything(short) == one_by_one
    shuffled = np.random.default_rng(1).permutation(short.samples)
    assert short.at(shuffled).triples.tolist() == [list(one_by_one[p]) for p in shuffled]


def test_counters_run_on_through_phases_of_equal_k() -> None:
    shards = table([16, 16, 9], [16, 3])
    whole = Order(shards, "d", 1, [Phase(60, weights={"a": 1})], 2)
    parts = Order(shards, "d", 1, [Phase(25, weights={"a": 1}), Phase(6, 2), Phase(35, weights={"a": 1})], 2)
    rows = everything(whole)
    assert rows[:25] == everything_between(parts, 0, 25)
    assert rows[25:60] == everything_between(parts, 31, 66)
    with pytest.raises(ValueError, match="different length"):
        parts.at([0, 26])


def everything_between(order: Order, low: int, high: int) -> list[tuple[int, int, int]]:
    return [tuple(t) for t in order.at(np.arange(low, high)).triples.tolist()]


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_blocks_hold_fixed_counts_of_each_source(lanes: int) -> None:
    shards = table([64] * 20, [64] * 5, [64, 10])
    order = Order(shards, "d", 3, [Phase(3 * BLOCK * lanes, weights={"a": 5, "b": 3, "c": 2})], 4, lanes)
    source = order.at(np.arange(order.samples)).source.reshape(3, BLOCK, lanes)
    for lane in range(lanes):
        for block in range(3):
            assert np.bincount(source[block, :, lane]).tolist() == [512, 307, 205]
    assert len({source[0].tobytes(), source[1].tobytes(), source[2].tobytes()}) == 3


def test_lanes_keep_to_their_own_part() -> None:
    shards = table([8] * 12)
    order = Order(shards, "d", 3, [Phase(96 * 3)], 2, lanes=4)
    found = order.at(np.arange(order.samples))
    parts = [{tuple(t) for t in found.triples[lane::4].tolist()} for lane in range(4)]
    assert [len(part) for part in parts] == [24] * 4
    assert len(set.union(*parts)) == 96
    # 12 whole shards in 4 lanes: 3 shards each, read two at a time
    for part in parts:
        assert len({shard for _, shard, _ in part}) == 3
    first_window = found.shard[0::4][:16]
    assert len(set(first_window.tolist())) == 2


def test_epochs_and_seeds_differ() -> None:
    shards = table([64] * 4)
    order = Order(shards, "d", 3, [Phase(512)], 2)
    found = everything(order)
    assert found[:256] != found[256:]
    assert found != everything(Order(shards, "d", 4, [Phase(512)], 2))
    assert found != everything(Order(shards, "e", 3, [Phase(512)], 2))


@quick
@given(st.integers(1, 5), st.integers(1, 3), st.integers(0, 20))
def test_a_source_leaves_when_its_repeat_is_used_up(repeat: int, lanes: int, seed: int) -> None:
    shards = table([16] * 6, [16, 2])
    order = Order(shards, "d", seed, [Phase(72 * lanes, weights={"a": 1, "b": 1}, repeat={"b": repeat})], 2, lanes)
    found = order.at(np.arange(order.samples))
    drawn = np.bincount(found.source)
    assert drawn.sum() == order.samples
    most = Counter(tuple(t) for t, s in zip(found.triples.tolist(), found.source, strict=True) if s == 1)
    assert max(most.values()) <= repeat
    plan = order.describe()["stretches"]
    assert sum(stretch["samples"] for stretch in plan) == order.samples
    if len(plan) > 1:
        assert plan[0]["ended_by_repeat_of"] == ["b"]
        assert (found.source[plan[1]["first_position"] :] == 0).all()
        # all lanes stop where the first of them has used its part up
        used = [int((found.source[lane::lanes] == 1).sum()) for lane in range(lanes)]
        caps = [repeat * ((lane + 1) * 18 // lanes - lane * 18 // lanes) for lane in range(lanes)]
        assert any(u == c for u, c in zip(used, caps, strict=True))
        assert all(u <= c for u, c in zip(used, caps, strict=True))
    for position in (0, order.samples // 2, order.samples - 1):
        source, shard, row, _ = order.at([position])
        assert position in order.positions_of(int(source[0]), int(shard[0]), int(row[0]))


def test_small_sources_are_drawn_by_default_and_refused_by_weight() -> None:
    shards = table([64] * 100, [2])
    order = Order(shards, "d", 1, [Phase(BLOCK)], 2)
    assert (order.at(np.arange(BLOCK)).source == 1).sum() == 1
    with pytest.raises(ConfigError, match="less than a slot"):
        Order(shards, "d", 1, [Phase(BLOCK, weights={"a": 1, "b": 0.0001})], 2)


@pytest.mark.parametrize(
    ("phase", "lanes", "message"),
    [
        (Phase(8, k=3), 1, "power of two"),
        (Phase(0), 1, "positive multiple"),
        (Phase(7), 2, "multiple of the 2 lanes"),
        (Phase(8, weights={"x": 1.0}), 1, "unknown source 'x'"),
        (Phase(8, repeat={"x": 1.0}), 1, "unknown source 'x'"),
        (Phase(8, weights={"a": 0.0}), 1, "not all zero"),
        (Phase(8, weights={"a": -1.0, "b": 2.0}), 1, "not negative"),
        (Phase(8, weights={"a": float("nan")}), 1, "finite"),
        (Phase(8), 4, "'b' has 3 samples at k = 1 for 4 lanes"),
        (Phase(8, k=4), 1, "'b' has 0 samples at k = 4"),
        (Phase(100, repeat=1), 1, "used up after 22 of 100"),
    ],
)
def test_what_cannot_be_drawn_is_refused(phase: Phase, lanes: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Order(table([16, 3], [3]), "d", 1, [phase], 2, lanes)


def test_positions_outside_the_run_are_refused() -> None:
    order = Order(table([16]), "d", 1, [Phase(8)], 2)
    for position in (-1, 8):
        with pytest.raises(IndexError):
            order.at([position])
    with pytest.raises(IndexError):
        order.positions_of(0, 0, 16)
    assert order.at([]).triples.shape == (0, 3)


def test_describe_is_json_and_counts_what_is_left_out() -> None:
    shards = table([16, 3], [16])
    plan = Order(shards, "d", 1, [Phase(10), Phase(4, 2)], 2).describe()
    assert json.loads(json.dumps(plan)) == plan
    assert plan["rows_left_out"] == {"1": {"a": 0, "b": 0}, "2": {"a": 1, "b": 0}}
    assert epoch_samples(shards) == 35 and epoch_samples(shards, 2) == 17


@quick
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50))
def test_largest_remainder_gives_all_slots_and_is_off_by_less_than_one(weights: list[float]) -> None:
    array = np.array(weights)
    counts = largest_remainder(array)
    assert counts.sum() == BLOCK
    assert (np.abs(counts - array / array.sum() * BLOCK) < 1).all()


@quick
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**64 - 1), st.integers(1, 3000))
def test_mixture_runs_backwards(weights: list[int], key: int, slots: int) -> None:
    mixture = Mixture(largest_remainder(np.array(weights, dtype=np.float64)), key)
    slot = np.arange(slots)
    lane = np.full_like(slot, 3)
    source, number = mixture.forward(lane, slot // BLOCK, slot % BLOCK)
    assert (mixture.backward(lane, source, number) == slot).all()
    for s in range(len(weights)):  # a source's draws are numbered 0, 1, 2, ... in order
        assert number[source == s].tolist() == list(range(int((source == s).sum())))
    assert mixture.drawn(4, slots)[:, 3].tolist() == np.bincount(source, minlength=len(weights)).tolist()


GOLDEN = "44fbfc48018ff2d3b8ce209249251970c3e4b554c21ce46c0a8bf54d0ea6a4e2"
SCRIPT = """
import hashlib, numpy as np
from stages.tokens.order import Order, Phase
from stages.tokens.table import ShardTable
shards = ShardTable(("a", "b"), (np.array([64] * 9 + [7]), np.array([64, 3])))
order = Order(shards, "digest", 7, [Phase(1500, weights={"a": 3, "b": 1}), Phase(300, 2)], 3, lanes=3)
total = hashlib.sha256()
for low, high in ((0, 1500), (1500, 1800)):
    total.update(order.at(np.arange(low, high)).triples.astype("<i8").tobytes())
print(total.hexdigest())
"""


def test_the_order_is_the_same_forever_and_in_another_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == GOLDEN
