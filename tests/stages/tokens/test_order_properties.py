"""The order compared with the design, case by case over a grid: the same sequence as the plain reference, complete
epochs, an exact inverse, and nothing that depends on ranks, restarts or the length of the run."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import ConfigError
from stages.tokens.batch import rank_slots
from stages.tokens.mixture import BLOCK
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.plan import plan
from stages.tokens.table import ShardTable
from tests.stages.tokens.order_reference import Part, sequence
from tests.support import examples

Rows = tuple[tuple[int, ...], ...]
Sample = tuple[int, int, int, int]

SIZES: dict[str, Rows] = {
    "one shard": ((8,),),
    "one row": ((1,),),
    "one short shard": ((5,),),
    "ragged last shard": ((8, 8, 8, 3),),
    "a tiny source beside a large one": ((8,) * 9, (2,)),
    "three sources": ((8, 8, 5), (8, 1), (4,)),
    "many shards": ((4,) * 15 + (1,), (4, 4, 2)),
}
STREAMS, WINDOWS, KS = (1, 2, 3, 5), (1, 2, 7), (1, 2, 4)


def table(rows: Rows) -> ShardTable:
    return ShardTable(tuple("abcdefgh"[: len(rows)]), tuple(np.array(r, dtype=np.int64) for r in rows))


def phases_of(rows: Rows, streams: int, k: int) -> dict[str, list[Part]]:
    """Plans worth trying for these sizes: about three epochs by size; weights, another k and back; `repeat`."""
    size = max(1, sum(sum(r) for r in rows) // k)
    names = "abcdefgh"[: len(rows)]
    uneven = {name: float(1 + 2 * number) for number, name in enumerate(names)}
    whole = -(-3 * size // streams) * streams
    return {
        "by size": [Part(whole, k)],
        "weights, then another k, and back": [
            Part(whole // 2 // streams * streams or streams, k, uneven),
            Part(streams * 4, 1 if k > 1 else 2),
            Part(whole, k, {name: 1.0 for name in names}),
        ],
        "repeat": [Part(max(streams, whole // 4 // streams * streams), k, uneven, {names[-1]: 1.5}), Part(streams, k)],
    }


GRID = [
    (name, streams, window, k, phases)
    for name, streams, window, k in itertools.product(SIZES, STREAMS, WINDOWS, KS)
    for phases in phases_of(SIZES[name], streams, k)
]


def order_of(rows: Rows, parts: Sequence[Part], window: int, streams: int, seed: int = 3) -> Order:
    phases = [Phase(part.samples, part.rows_per_sample, part.weights, part.repeat) for part in parts]
    return Order(table(rows), "digest", seed, phases, window, streams)


def read(order: Order, positions: Sequence[int]) -> list[Sample]:
    """Samples of some positions, requested in runs of equal sample length."""
    found: list[Sample] = []
    for k, some in itertools.groupby(positions, order.rows_per_sample_at):
        found += [(*map(int, triple), k) for triple in order.at(list(some)).triples]
    return found


def drawable(rows: Rows, parts: Sequence[Part], streams: int) -> bool:
    """Every source that is drawn has a sample for each stream."""
    for part in parts:
        for number, shards in enumerate(rows):
            drawn = part.weights is None or part.weights.get("abcdefgh"[number], 0) > 0
            if drawn and sum(shard // part.rows_per_sample for shard in shards) < streams:
                return False
    return True


def check_epochs(order: Order, found: Sequence[Sample]) -> None:
    """In each stream each source comes in whole epochs, each sample once in each, the last one cut short."""
    drawn: dict[tuple[int, int, int], list[tuple[int, int]]] = defaultdict(list)
    for position, (source, shard, row, k) in enumerate(found):
        drawn[k, source, position % order.streams].append((shard, row))
    for (k, source, stream), samples in drawn.items():
        every = sum(int(rows) // k for rows in order.shards.rows[source])
        n = (stream + 1) * every // order.streams - stream * every // order.streams
        epochs = [samples[first : first + n] for first in range(0, len(samples), n)]
        assert all(len(set(epoch)) == len(epoch) for epoch in epochs)
        assert len({frozenset(epoch) for epoch in epochs if len(epoch) == n}) <= 1
        assert all(set(epoch) <= set(epochs[0]) for epoch in epochs)
    for k, source in {(k, source) for k, source, _ in drawn}:
        firsts = []
        for stream in range(order.streams):
            every = sum(int(rows) // k for rows in order.shards.rows[source])
            n = (stream + 1) * every // order.streams - stream * every // order.streams
            firsts.append(drawn[k, source, stream][:n] if len(drawn[k, source, stream]) >= n else None)
        if all(first is not None for first in firsts):  # then the streams together hold every sample
            together = [sample for first in firsts for sample in first or ()]
            assert sorted(together) == [
                (shard, row * k)
                for shard, rows in enumerate(order.shards.rows[source])
                for row in range(int(rows) // k)
            ]


def check_inverse(order: Order, found: Sequence[Sample]) -> None:
    """Every row of every source leads to exactly the positions at which it came, once an epoch."""
    seen: dict[tuple[int, int, int], list[int]] = defaultdict(list)
    for position, (source, shard, row, k) in enumerate(found):
        for more in range(k):
            seen[source, shard, row + more].append(position)
    for source, shards in enumerate(order.shards.rows):
        rows = [(shard, row) for shard, count in enumerate(shards.tolist()) for row in range(count)]
        which, positions = order.occurrences(source, [shard for shard, _ in rows], [row for _, row in rows])
        back = defaultdict(list)
        for index, position in zip(which.tolist(), positions.tolist(), strict=True):
            back[rows[index]].append(position)
        for shard, row in rows:
            assert sorted(back[shard, row]) == seen[source, shard, row]


@pytest.mark.parametrize("name", SIZES)
def test_the_grid(name: str) -> None:
    """Each of the grid's cases is the reference's sequence, complete and invertible; what cannot be drawn is refused.

    A rank's part and a resumed run are looked at in every case too, with a number of ranks and a place that differ
    from case to case.
    """
    rows, drawn, refused = SIZES[name], 0, 0
    for number, (_, streams, window, k, phases) in enumerate(case for case in GRID if case[0] == name):
        parts = phases_of(rows, streams, k)[phases]
        if not drawable(rows, parts, streams):
            with pytest.raises(ConfigError, match=f"samples of .* rows for {streams} streams"):
                order_of(rows, parts, window, streams)
            refused += 1
            continue
        try:
            expected = sequence("abcdefgh"[: len(rows)], rows, "digest", 3, parts, window, streams)
        except ValueError:
            with pytest.raises(ConfigError, match="reach `repeat`"):
                order_of(rows, parts, window, streams)
            refused += 1
            continue
        order = order_of(rows, parts, window, streams)
        found = read(order, range(order.samples))
        assert found == expected, (streams, window, k, phases)
        check_epochs(order, found)
        check_inverse(order, found)
        batch, ranks = streams * (1 + number % 3), 1 + number % 9
        check_ranks_and_resuming(order_of(rows, parts, window, streams), found, batch, ranks, number)
        drawn += 1
    assert drawn + refused == len(STREAMS) * len(WINDOWS) * len(KS) * 3 and drawn


def check_ranks_and_resuming(order: Order, found: Sequence[Sample], batch: int, ranks: int, number: int) -> None:
    """From some step on, the ranks' parts of the next batches put together are the batches."""
    steps = order.samples // batch
    first = number % max(1, steps)
    for step in range(first, min(first + 3, steps)):
        parts = [(step * batch + rank_slots(batch, rank, ranks, order.streams)).tolist() for rank in range(ranks)]
        assert sorted(itertools.chain(*parts)) == list(range(step * batch, (step + 1) * batch))
        if len({found[position][3] for part in parts for position in part}) > 1:
            continue  # phases of a run end on whole batches; these are of any length
        for part in parts:
            assert read(order, part) == [found[position] for position in part]
        if order.streams % ranks == 0:  # then a rank keeps whole streams to itself
            owners = Counter(stream for part in parts for stream in {position % order.streams for position in part})
            assert set(owners.values()) == {1}


ROWS: Rows = ((16,) * 6 + (5,), (16, 3))


@pytest.mark.parametrize("streams", [1, 2, 4])
@pytest.mark.parametrize(
    "ranks", [1, 2, 3, 8, 9, 17, *(pytest.param(ranks, marks=pytest.mark.full) for ranks in (4, 5, 7, 16))]
)
def test_every_split_into_ranks_gives_the_same_batches(streams: int, ranks: int) -> None:
    """More ranks than samples too: some then have none."""
    batch, steps = 8, 40
    order = order_of(ROWS, [Part(batch * steps, weights={"a": 3, "b": 1})], 3, streams)
    found = read(order, range(order.samples))
    stream_major = sorted(range(batch), key=lambda slot: (slot % streams, slot // streams))
    for step in range(steps):
        parts = [step * batch + rank_slots(batch, rank, ranks, streams) for rank in range(ranks)]
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
        together = [sample for part in parts for sample in read(order, part.tolist())]
        assert together == [found[step * batch + slot] for slot in stream_major]


@pytest.mark.parametrize("streams", [1, 3])
def test_every_resume_point_gives_the_same_samples(streams: int) -> None:
    """An order that has not been asked before gives, from each step on, what the whole run has from that step on."""
    batch, parts = 6, [Part(60, weights={"a": 3, "b": 1}, repeat={"b": 2}), Part(36, 2), Part(48)]
    whole = read(order_of(ROWS, parts, 3, streams), range(144))
    for step in range(144 // batch):
        resumed = order_of(ROWS, parts, 3, streams)
        going_on = [read(resumed, range(at * batch, (at + 1) * batch)) for at in range(step, 144 // batch)]
        assert list(itertools.chain(*going_on)) == whole[step * batch :]


@examples(50)
@given(
    st.lists(st.tuples(st.integers(1, 5), st.integers(1, 8)), min_size=1, max_size=3),
    st.sampled_from([1, 2, 4]),
    st.integers(1, 4),
    st.integers(1, 6),
    st.integers(0, 2**32),
    st.integers(1, 40),
    st.data(),
)
def test_any_order_is_the_references(
    sizes: list[tuple[int, int]], k: int, streams: int, window: int, seed: int, length: int, data: st.DataObject
) -> None:
    """Sizes, weights and seeds at random."""
    rows = tuple((8,) * (shards - 1) + (last,) for shards, last in sizes)
    names = "abcdefgh"[: len(rows)]
    weights = data.draw(
        st.none()
        | st.fixed_dictionaries({name: st.floats(0.01, 1.0) | st.just(0.0) for name in names}).filter(
            lambda w: sum(w.values()) > 0
        )
    )
    parts = [Part(length * streams, k, weights), Part(streams * 5, 1, weights, data.draw(st.none() | st.just(1e6)))]
    if not drawable(rows, parts, streams):
        return
    order = order_of(rows, parts, window, streams, seed)
    found = read(order, range(order.samples))
    assert found == sequence(names, rows, "digest", seed, parts, window, streams)
    check_epochs(order, found)
    check_inverse(order, found)


@pytest.mark.parametrize(("streams", "window"), [(1, 1), (1, 2), (1, 9), (3, 2)])
def test_the_way_of_requesting_positions_does_not_matter(streams: int, window: int) -> None:
    """Shards of some size: all at once, in spans of any length, one by one, and in no order at all."""
    rows: Rows = ((400,) * 4 + (77,), (64, 64, 9))
    parts = [Part(4200, weights={"a": 5, "b": 1}), Part(300, 2), Part(900)]
    expected = sequence("ab", rows, "digest", 3, parts, window, streams)
    order = order_of(rows, parts, window, streams)
    assert read(order, range(order.samples)) == expected
    generator, low = np.random.default_rng(0), 0
    while low < order.samples:
        size = int(generator.choice([1, 2, 7, 100, 700]))
        assert read(order, range(low, min(low + size, order.samples))) == expected[low : low + size]
        low += size
    some = generator.permutation(4200)
    found = order_of(rows, parts, window, streams).at(some)
    assert [(*map(int, triple), 1) for triple in found.triples] == [expected[p] for p in some.tolist()]
    check_inverse(order, expected)


@examples(50)
@given(st.integers(1, 4), st.integers(1, 30), st.integers(0, 30), st.integers(0, 9))
def test_positions_do_not_depend_on_the_length_of_the_run(streams: int, first: int, more: int, seed: int) -> None:
    weights = {"a": 1.0, "b": 2.0}
    short = order_of(ROWS, [Part(first * streams, weights=weights)], 2, streams, seed)
    long = order_of(ROWS, [Part((first + more) * streams, weights=weights), Part(streams * 8, 2)], 2, streams, seed)
    assert read(short, range(short.samples)) == read(long, range(short.samples))


def test_counts_are_exact_at_any_place_of_a_long_run() -> None:
    """A run over a billion rows: every block that is asked for, the last one too, holds the same counts of each source;
    the plan's sums are theirs, and a row of a small source is found at each of its hundreds of epochs."""
    full = np.full(40_000, 16_384, dtype=np.int64)
    shards = ShardTable(("a", "b", "c"), (full, full[:20_000], full[:1]))
    order = Order(shards, "d", 1, [Phase(BLOCK * 976_562 + 512, weights={"a": 51, "b": 48, "c": 1})], 16)
    for block in (0, 1, 499_999, 976_561):
        source = order.at(np.arange(block * BLOCK, (block + 1) * BLOCK)).source
        assert np.bincount(source).tolist() == [522, 492, 10]
    last = np.bincount(order.at(np.arange(order.samples - 512, order.samples)).source, minlength=3)
    drawn = [source.samples for source in plan(order, 2048).segments[0].sources.values()]
    assert drawn == [976_562 * count + rest for count, rest in zip((522, 492, 10), last.tolist(), strict=True)]
    positions = np.sort(order.occurrences(2, [0], [77])[1])
    assert len(positions) in (drawn[2] // 16_384, drawn[2] // 16_384 + 1)
    assert (order.at(positions).triples == [2, 0, 77]).all()
