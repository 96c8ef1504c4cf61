"""The order, its mixture and its plan, one property at a time; the grid of cases is in test_order_properties.py."""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import ConfigError
from stages.tokens.mixture import BLOCK, Mixture, largest_remainder
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.plan import plan
from stages.tokens.table import ShardTable
from tests.support import examples

quick = examples(40)


def table(*rows: list[int]) -> ShardTable:
    return ShardTable(tuple("abcdefgh"[: len(rows)]), tuple(np.array(r, dtype=np.int64) for r in rows))


def everything(order: Order) -> list[tuple[int, int, int]]:
    return [tuple(t) for t in order.at(np.arange(order.samples)).triples.tolist()]


def test_counters_continue_through_phases_of_equal_sample_length() -> None:
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


@pytest.mark.parametrize("streams", [1, 2, 5])
def test_blocks_hold_fixed_counts_of_each_source(streams: int) -> None:
    shards = table([64] * 20, [64] * 5, [64, 10])
    order = Order(shards, "d", 3, [Phase(3 * BLOCK * streams, weights={"a": 5, "b": 3, "c": 2})], 4, streams)
    source = order.at(np.arange(order.samples)).source.reshape(3, BLOCK, streams)
    for stream in range(streams):
        for block in range(3):
            assert np.bincount(source[block, :, stream]).tolist() == [512, 307, 205]
    assert len({source[0].tobytes(), source[1].tobytes(), source[2].tobytes()}) == 3


def test_streams_keep_to_their_own_part() -> None:
    shards = table([8] * 12)
    order = Order(shards, "d", 3, [Phase(96 * 3)], 2, streams=4)
    found = order.at(np.arange(order.samples))
    parts = [{tuple(t) for t in found.triples[stream::4].tolist()} for stream in range(4)]
    assert [len(part) for part in parts] == [24] * 4
    assert len(set.union(*parts)) == 96
    # 12 whole shards in 4 streams: 3 shards each, read two at a time
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
def test_a_source_leaves_the_mixture_when_it_reaches_its_repeat(repeat: int, streams: int, seed: int) -> None:
    shards = table([16] * 6, [16, 2])
    order = Order(shards, "d", seed, [Phase(72 * streams, weights={"a": 1, "b": 1}, repeat={"b": repeat})], 2, streams)
    found = order.at(np.arange(order.samples))
    drawn = np.bincount(found.source)
    assert drawn.sum() == order.samples
    most = Counter(tuple(t) for t, s in zip(found.triples.tolist(), found.source, strict=True) if s == 1)
    assert max(most.values()) <= repeat
    segments = plan(order, 64).segments
    assert sum(segment.samples for segment in segments) == order.samples
    if len(segments) > 1:
        assert segments[0].exhausted_sources == ("b",)
        assert (found.source[segments[1].first_position :] == 0).all()
        # all streams stop where the first of them has exhausted its part
        used = [int((found.source[stream::streams] == 1).sum()) for stream in range(streams)]
        caps = [repeat * ((stream + 1) * 18 // streams - stream * 18 // streams) for stream in range(streams)]
        assert any(u == c for u, c in zip(used, caps, strict=True))
        assert all(u <= c for u, c in zip(used, caps, strict=True))
    for position in (0, order.samples // 2, order.samples - 1):
        source, shard, row, _ = order.at([position])
        assert position in order.occurrences(int(source[0]), shard, row)[1]


def test_small_sources_are_drawn_by_default_and_refused_by_weight() -> None:
    shards = table([64] * 100, [2])
    order = Order(shards, "d", 1, [Phase(BLOCK)], 2)
    assert (order.at(np.arange(BLOCK)).source == 1).sum() == 1
    with pytest.raises(ConfigError, match="less than one slot"):
        Order(shards, "d", 1, [Phase(BLOCK, weights={"a": 1, "b": 0.0001})], 2)


@pytest.mark.parametrize(
    ("phase", "streams", "message"),
    [
        (Phase(7), 2, "not a multiple of 2 streams"),
        (Phase(8, weights={"x": 1.0}), 1, "phase 0: weights: unknown source 'x'; known sources: a, b"),
        (Phase(8, repeat={"x": 1.0}), 1, "phase 0: repeat: unknown source 'x'"),
        (Phase(8), 4, "'b' has 3 samples of 1 rows for 4 streams"),
        (Phase(8, rows_per_sample=4), 1, "'b' has 0 samples of 4 rows"),
        (Phase(100, repeat=1), 1, "reach `repeat` after 22 of 100"),
    ],
)
def test_what_cannot_be_drawn_is_refused(phase: Phase, streams: int, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Order(table([16, 3], [3]), "d", 1, [phase], 2, streams)


def test_positions_outside_the_run_are_refused() -> None:
    order = Order(table([16]), "d", 1, [Phase(8)], 2)
    for position in (-1, 8):
        with pytest.raises(IndexError):
            order.at([position])
    with pytest.raises(IndexError):
        order.occurrences(0, [0], [16])
    assert order.at([]).triples.shape == (0, 3)


def test_the_plan_is_json_and_adds_up() -> None:
    shards = table([16, 3], [16], [8])
    phases = [Phase(100, weights={"a": 3, "b": 1}), Phase(4, 2), Phase(200, 1, {"a": 1, "b": 1}, {"b": 4})]
    order = Order(shards, "d", 1, phases, 2, streams=2)
    found = plan(order, 64)
    assert json.loads(json.dumps(found.as_dict())) == json.loads(json.dumps(asdict(found)))
    assert found.rows_left_out == {"1": {"a": 0, "b": 0, "c": 0}, "2": {"a": 1, "b": 0, "c": 0}}
    assert found.samples == 304 and found.tokens == (300 + 4 * 2) * 64
    assert [(s.phase, s.first_position, s.rows_per_sample) for s in found.segments][:3] == [
        (0, 0, 1),
        (1, 100, 2),
        (2, 104, 1),
    ]
    assert [s.exhausted_sources for s in found.segments] == [(), (), ("b",), ()]
    for segment in found.segments:
        positions = np.arange(segment.first_position, segment.first_position + segment.samples)
        drawn = Counter(shards.sources[s] for s in order.at(positions).source.tolist())
        assert {name: source.samples for name, source in segment.sources.items() if source.samples} == drawn
        assert sum(source.tokens for source in segment.sources.values()) == segment.tokens
        assert sum(source.share for source in segment.sources.values()) == pytest.approx(1)
    assert sum(source.tokens for source in found.sources.values()) == found.tokens
    rows = {
        name: sum(s.sources[name].samples * s.rows_per_sample for s in found.segments if name in s.sources)
        for name in "abc"
    }
    for name, source in found.sources.items():
        assert source.epochs == pytest.approx(rows[name] / found.rows[name], abs=1e-6)


def test_the_plan_warns_of_sources_that_are_read_too_often_or_never() -> None:
    shards = table([64] * 4, [16], [16])
    order = Order(shards, "d", 1, [Phase(512, weights={"a": 3, "b": 1})], 2)
    often, never = plan(order, 64).warnings
    assert "'b' is read 7.8 times" in often and "`repeat`" in often
    assert "'c' is never drawn" in never
    assert not plan(Order(shards, "d", 1, [Phase(512)], 2), 64).warnings


@quick
@given(st.lists(st.floats(0.001, 1000), min_size=1, max_size=50))
def test_largest_remainder_gives_all_slots_and_is_off_by_less_than_one(weights: list[float]) -> None:
    array = np.array(weights)
    counts = largest_remainder(array)
    assert counts.sum() == BLOCK
    assert (np.abs(counts - array / array.sum() * BLOCK) < 1).all()


@quick
@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 2**64 - 1), st.integers(1, 3000))
def test_a_mixture_has_an_inverse(weights: list[int], key: int, slots: int) -> None:
    mixture = Mixture(largest_remainder(np.array(weights, dtype=np.float64)), key)
    slot = np.arange(slots)
    stream = np.full_like(slot, 3)
    source, number = mixture.forward(stream, slot // BLOCK, slot % BLOCK)
    assert (mixture.backward(stream, source, number) == slot).all()
    for s in range(len(weights)):  # a source's draws are numbered 0, 1, 2, ... in order
        assert number[source == s].tolist() == list(range(int((source == s).sum())))
    assert mixture.count_draws(4, slots)[:, 3].tolist() == np.bincount(source, minlength=len(weights)).tolist()


GOLDEN = "44fbfc48018ff2d3b8ce209249251970c3e4b554c21ce46c0a8bf54d0ea6a4e2"
SCRIPT = """
import hashlib, numpy as np
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.plan import plan
from stages.tokens.table import ShardTable
shards = ShardTable(("a", "b"), (np.array([64] * 9 + [7]), np.array([64, 3])))
order = Order(shards, "digest", 7, [Phase(1500, weights={"a": 3, "b": 1}), Phase(300, 2)], 3, streams=3)
total = hashlib.sha256()
for low, high in ((0, 1500), (1500, 1800)):
    total.update(order.at(np.arange(low, high)).triples.astype("<i8").tobytes())
print(total.hexdigest())
"""


def test_the_order_is_the_same_forever_and_in_another_process() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == GOLDEN
