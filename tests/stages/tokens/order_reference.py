"""A second implementation of the design's "Order", slow and simple: integers, lists, loops, slot by slot.

It shares no code with `stages/tokens`, only the specification (docs/design.md) and the constants of the hash. As in the
specification, k is the rows per sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

BLOCK = 1024
GOLDEN = 0x9E3779B97F4A7C15
WORD = (1 << 64) - 1


@dataclass(frozen=True)
class Part:
    """A phase: samples, rows per sample, weights by source (None: by size), maximum epochs."""

    samples: int
    rows_per_sample: int = 1
    weights: Mapping[str, float] | None = None
    repeat: float | Mapping[str, float] | None = None


def mix(value: int) -> int:
    value ^= value >> 33
    value = value * 0xFF51AFD7ED558CCD & WORD
    value ^= value >> 33
    value = value * 0xC4CEB9FE1A85EC53 & WORD
    return value ^ value >> 33


def keyed_hash(key: int, *values: int) -> int:
    for value in values:
        key = mix((key ^ value) + GOLDEN & WORD)
    return key


def permuted(index: int, n: int, key: int) -> int:
    """Eight rounds of a Feistel network over the bits of n - 1, repeated until the result is below n."""
    bits = (n - 1).bit_length()
    low = bits // 2
    while True:
        left, right = index >> low, index % (1 << low)
        for turn in range(8):
            step = key + GOLDEN * (turn + 1)
            if turn % 2 == 0:
                left ^= mix(right + step & WORD) % (1 << bits - low)
            else:
                right ^= mix(left + step & WORD) % (1 << low)
        index = (left << low) + right
        if index < n:
            return index


def slots(weights: Sequence[float]) -> list[int]:
    """Largest remainder: floors, then a slot each to the largest remainders, the earlier source first."""
    total = sum(Fraction(w) for w in weights)
    shares = [Fraction(w) / total * BLOCK for w in weights]
    counts = [int(share) for share in shares]
    by_remainder = sorted(range(len(shares)), key=lambda s: (-round(float(shares[s] - counts[s]), 9), s))
    for s in by_remainder[: BLOCK - sum(counts)]:
        counts[s] += 1
    return counts


class Shuffle:
    """The samples of every source at one k, in the order of each data stream."""

    def __init__(self, rows: Sequence[Sequence[int]], k: int, streams: int, window: int, key: int):
        self.key, self.window, self.streams = keyed_hash(key, k), window, streams
        self.spans: list[list[list[tuple[int, list[tuple[int, int]]]]]] = []  # source, stream, span: (number, samples)
        self.known: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
        number = 0
        for source, shards in enumerate(rows):
            by_hash = sorted(range(len(shards)), key=lambda shard: keyed_hash(self.key, 1, source, shard))
            line = [(shard, row) for shard in by_hash for row in range(0, shards[shard] - k + 1, k)]
            of_streams = []
            for stream in range(streams):
                mine = line[stream * len(line) // streams : (stream + 1) * len(line) // streams]
                spans: list[tuple[int, list[tuple[int, int]]]] = []
                for shard, row in mine:
                    if not spans or spans[-1][1][0][0] != shard:
                        spans.append((number, []))
                        number += 1
                    spans[-1][1].append((shard, row))
                of_streams.append(spans)
            self.spans.append(of_streams)
        self.samples = [[sum(len(s) for _, s in spans) for spans in of_streams] for of_streams in self.spans]

    def epoch(self, source: int, stream: int, epoch: int) -> list[tuple[int, int]]:
        """(shard, first row) of every sample of the stream, in the order of one epoch."""
        if (source, stream, epoch) not in self.known:
            key = keyed_hash(self.key, source * self.streams + stream, epoch)
            spans = sorted(self.spans[source][stream], key=lambda span: keyed_hash(key, 2, span[0]))
            order = []
            for number, first in enumerate(range(0, len(spans), self.window)):
                inside = [sample for _, samples in spans[first : first + self.window] for sample in samples]
                order += [inside[permuted(i, len(inside), keyed_hash(key, 3, number))] for i in range(len(inside))]
            self.known[source, stream, epoch] = order
        return self.known[source, stream, epoch]


def sequence(
    names: Sequence[str],
    rows: Sequence[Sequence[int]],
    digest: str,
    seed: int,
    parts: Sequence[Part],
    window: int,
    streams: int,
) -> list[tuple[int, int, int, int]]:
    """(source, shard, first row, k) of every position of a run, from the first to the last.

    Raises:
        ValueError: every source reaches its `repeat` before the end.
    """
    key = int.from_bytes(hashlib.blake2b(f"{digest}\0{seed}".encode(), digest_size=8).digest(), "little")
    shuffles: dict[int, Shuffle] = {}
    counters: dict[tuple[int, int, int], int] = {}
    found = []
    for number, part in enumerate(parts):
        k = part.rows_per_sample
        shuffle = shuffles.setdefault(k, Shuffle(rows, k, streams, window, key))
        sizes = [sum(samples) for samples in shuffle.samples]
        weights = [float(part.weights.get(name, 0.0)) for name in names] if part.weights else [float(n) for n in sizes]
        left, segment = part.samples // streams, 0
        while left:
            if not any(weights):
                raise ValueError("all sources reach `repeat`")
            counts = slots(weights)
            if part.weights is None:
                for source, weight in enumerate(weights):
                    if weight and not counts[source]:
                        counts[counts.index(max(counts))] -= 1
                        counts[source] = 1
            by_place = [source for source, count in enumerate(counts) for _ in range(count)]
            blocks = keyed_hash(key, 5, number, segment)
            slot, exhausted = 0, set()
            while left and not exhausted:
                block, place = divmod(slot, BLOCK)
                drawn = [
                    by_place[permuted(place, BLOCK, keyed_hash(blocks, 4, stream, block))] for stream in range(streams)
                ]
                for stream, source in enumerate(drawn):
                    repeat = part.repeat.get(names[source]) if isinstance(part.repeat, Mapping) else part.repeat
                    most = None if repeat is None else int(repeat * shuffle.samples[source][stream])
                    if most is not None and counters.get((k, source, stream), 0) >= most:
                        exhausted.add(source)
                if exhausted:
                    break
                for stream, source in enumerate(drawn):
                    counter = counters.get((k, source, stream), 0)
                    counters[k, source, stream] = counter + 1
                    epoch, within = divmod(counter, shuffle.samples[source][stream])
                    found.append((source, *shuffle.epoch(source, stream, epoch)[within], k))
                slot, left = slot + 1, left - 1
            weights = [0.0 if source in exhausted else weight for source, weight in enumerate(weights)]
            segment += 1
    return found
