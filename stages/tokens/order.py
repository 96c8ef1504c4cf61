"""The order of training: position -> (source, shard, first row), a pure function with an inverse.

Position p is position `p div C` of data stream `p mod C`. A phase consists of segments; in a segment every block of
1,024 slots of a stream draws fixed counts per source (`mixture.py`), which maps a slot to a source and that source's
own counter; the counter gives a sample through the shuffle of the source's shard spans (`shard_spans.py`). Everything
is computed from the table of shards, a digest, a seed and the phases: never from rows, ranks, or the length of the run.

Counters continue through phases of equal `rows_per_sample`, and each sample length has its own counters: a phase that
returns to an earlier length continues where that length stopped.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.store.errors import ConfigError
from stages.tokens.feistel import keyed_hash
from stages.tokens.mixture import BLOCK, Mixture, largest_remainder
from stages.tokens.phase import Phase
from stages.tokens.shard_spans import ShardSpans
from stages.tokens.table import ShardTable

I64 = NDArray[np.int64]

_PHASE = 5


class Samples(NamedTuple):
    """The samples at some positions: arrays [n]."""

    source: I64
    shard: I64
    row: I64
    """First row in the shard; the sample is rows `row` to `row + rows_per_sample - 1`."""
    rows_per_sample: int

    @property
    def triples(self) -> I64:
        """int64 [n, 3] of (source, shard, first row)."""
        return np.stack([self.source, self.shard, self.row], axis=1)


@dataclass(frozen=True, eq=False)
class PhaseSegment:
    """Consecutive slots of every data stream with one mixture: a phase, or a part of one that ends where a source
    reaches its `repeat`."""

    phase: int
    start: int
    """First slot (of each stream)."""
    slots: int
    rows_per_sample: int
    base: I64
    """[sources, streams]: counters at the first slot."""
    drawn: I64
    """[sources, streams]: samples drawn in the segment."""
    mixture: Mixture
    exhausted_sources: tuple[str, ...] = field(default=())
    """Sources that reach their `repeat` at the end of this segment and leave the mixture."""


class Order:
    """The order of one run.

    Args:
        shards: the table of shards of the token stream.
        digest: the tokens artifact's digest.
        seed: the run's seed.
        phases: what is drawn, in turn.
        shuffle_window_shards: consecutive shards (shard spans) of a source that are shuffled together.
        streams: number of data streams C.

    Raises:
        ConfigError: phases that cannot be drawn from these sources.
    """

    def __init__(
        self,
        shards: ShardTable,
        digest: str,
        seed: int,
        phases: Sequence[Phase],
        shuffle_window_shards: int,
        streams: int = 1,
    ):
        if shuffle_window_shards < 1 or streams < 1:
            raise ConfigError(
                f"order: shuffle_window_shards ({shuffle_window_shards}) and streams ({streams}) must be at least 1"
            )
        if not phases:
            raise ConfigError("order: no phases; give at least one")
        self.shards, self.phases, self.streams = shards, tuple(phases), streams
        self.shuffle_window_shards = shuffle_window_shards
        self._key = int.from_bytes(hashlib.blake2b(f"{digest}\0{seed}".encode(), digest_size=8).digest(), "little")
        self._spans: dict[int, ShardSpans] = {}
        self._counters: dict[int, I64] = {}
        self._segments: list[PhaseSegment] = []
        start = 0
        for number, phase in enumerate(self.phases):
            self._check(number, phase)
            start = self._add_segments(number, phase, start)
        self._ends = np.array([segment.start + segment.slots for segment in self._segments], dtype=np.int64)
        self.samples = start * streams
        """Positions in the run."""

    def at(self, positions: ArrayLike) -> Samples:
        """The samples at some positions (int64 [n]), which must share one sample length.

        Raises:
            IndexError: a position outside the run.
            ValueError: positions of phases with different sample lengths.
        """
        p = np.asarray(positions, dtype=np.int64).ravel()
        if p.size and (int(p.min()) < 0 or int(p.max()) >= self.samples):
            raise IndexError(f"order: positions are 0 to {self.samples - 1}, got {int(p.min())} to {int(p.max())}")
        slot, stream = np.divmod(p, self.streams) if self.streams > 1 else (p, np.zeros_like(p))
        source, counter = np.empty_like(p), np.empty_like(p)
        used = self._segments_at(slot)
        for index, here in used:
            segment = self._segments[index]
            since = slot[here] - segment.start
            source[here], drawn = segment.mixture.forward(stream[here], since // BLOCK, since % BLOCK)
            counter[here] = segment.base[source[here], stream[here]] + drawn
        lengths = {self._segments[index].rows_per_sample for index, _ in used}
        if len(lengths) > 1:
            raise ValueError(f"order: samples of different length at these positions (rows: {sorted(lengths)})")
        rows_per_sample = lengths.pop() if lengths else self.phases[0].rows_per_sample
        shard, row = self._spans[rows_per_sample].forward(source, stream, counter)
        return Samples(source, shard, row, rows_per_sample)

    def _segments_at(self, slot: I64) -> list[tuple[int, slice | NDArray[np.bool_]]]:
        """The segments that some slots belong to, each with the selection of its slots."""
        if not slot.size:
            return []
        low, high = np.searchsorted(self._ends, [slot.min(), slot.max()], side="right").tolist()
        if low == high:
            return [(low, slice(None))]
        which = np.searchsorted(self._ends, slot, side="right")
        return [(index, which == index) for index in np.unique(which).tolist()]

    def occurrences(self, source: int, shard: ArrayLike, row: ArrayLike) -> tuple[I64, I64]:
        """All positions of the run whose samples cover some rows (shard [n], row [n]) of a source.

        A row that belongs to no sample at some sample length has no positions in phases of that length.

        Returns:
            (index of the row int64 [m], position int64 [m]), unordered. Rows of one sample share its position.

        Raises:
            IndexError: no such row.
        """
        shards, rows = np.atleast_1d(np.asarray(shard, np.int64)), np.atleast_1d(np.asarray(row, np.int64))
        known = self.shards.rows[source]
        outside = (shards < 0) | (shards >= len(known)) | (rows < 0)
        outside |= rows >= known[np.clip(shards, 0, len(known) - 1)]
        if outside.any():
            first = int(np.argmax(outside))
            raise IndexError(
                f"order: source {self.shards.sources[source]!r} has no row {rows[first]} in shard {shards[first]}"
            )
        found = [self._occurrences_at(rows_per_sample, source, shards, rows) for rows_per_sample in self._spans]
        which, positions = (np.concatenate([part[column] for part in found]) for column in range(2))
        return which, positions

    def rows_per_sample_at(self, position: int) -> int:
        """Rows per sample at one position."""
        return self._segments[int(np.searchsorted(self._ends, position // self.streams, side="right"))].rows_per_sample

    def same_length_until(self, position: int) -> int:
        """The first position after `position` with another sample length; if there is none, the end of the run."""
        index = int(np.searchsorted(self._ends, position // self.streams, side="right"))
        rows_per_sample = self._segments[index].rows_per_sample
        for segment in self._segments[index:]:
            if segment.rows_per_sample != rows_per_sample:
                return segment.start * self.streams
        return self.samples

    @property
    def segments(self) -> tuple[PhaseSegment, ...]:
        """The run's segments, one mixture each, in order."""
        return tuple(self._segments)

    @property
    def sample_lengths(self) -> tuple[int, ...]:
        """All values of `rows_per_sample` in the run, ascending."""
        return tuple(sorted(self._spans))

    def _occurrences_at(self, rows_per_sample: int, source: int, shard: I64, row: I64) -> tuple[I64, I64]:
        spans = self._spans[rows_per_sample]
        place = spans.locate(source, shard, row)
        which, positions = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for span in np.unique(place.span).tolist():
            here = np.flatnonzero(place.span == span)
            stream = int(place.stream[here[0]])
            total = int(self._counters[rows_per_sample][source, stream])
            epochs = -(-total // int(spans.samples[source, stream]))
            counters = spans.counters(source, stream, span, place.sample[here], epochs)
            owner = np.broadcast_to(place.which[here], counters.shape)
            for segment in self._segments:
                if segment.rows_per_sample != rows_per_sample or not segment.mixture.counts[source]:
                    continue
                number = counters - segment.base[source, stream]
                inside = (number >= 0) & (number < segment.drawn[source, stream])
                number = number[inside]
                slots = segment.mixture.backward(np.full_like(number, stream), np.full_like(number, source), number)
                positions.append((slots + segment.start) * self.streams + stream)
                which.append(owner[inside])
        return np.concatenate(which), np.concatenate(positions)

    def _add_segments(self, number: int, phase: Phase, start: int) -> int:
        """Adds the segments of one phase, which begins at slot `start`; returns the slot after it."""
        length = phase.rows_per_sample
        if length not in self._spans:
            self._spans[length] = ShardSpans(self.shards, length, self.streams, self.shuffle_window_shards, self._key)
            self._counters[length] = np.zeros((len(self.shards.sources), self.streams), dtype=np.int64)
        samples, weights = self._spans[length].samples, self._weights(number, phase)
        caps = self._caps(phase, samples)
        left, part = phase.samples // self.streams, 0
        while left:
            if not weights.sum() > 0:
                raise ConfigError(
                    f"phase {number}: all its sources reach `repeat` after {phase.samples - left * self.streams} of "
                    f"{phase.samples} samples; raise `repeat`, add documents, or use fewer samples"
                )
            key = int(keyed_hash(self._key, _PHASE, number, part)[0])
            mixture = Mixture(self._counts(number, phase, weights), key)
            base = self._counters[length]
            slots, exhausted = _until_exhausted(mixture, base, caps, left)
            if slots:
                names = tuple(self.shards.sources[s] for s in exhausted)
                drawn = mixture.count_draws(self.streams, slots)
                self._segments.append(PhaseSegment(number, start, slots, length, base, drawn, mixture, names))
                self._counters[length] = base + drawn
            weights = weights.copy()
            weights[exhausted] = 0
            start, left, part = start + slots, left - slots, part + 1
        return start

    def _check(self, number: int, phase: Phase) -> None:
        if phase.samples % self.streams:
            raise ConfigError(f"phase {number}: {phase.samples} samples is not a multiple of {self.streams} streams")
        for name, value in (("weights", phase.weights), ("repeat", phase.repeat)):
            for unknown in sorted(set(value) - set(self.shards.sources)) if isinstance(value, Mapping) else ():
                known = ", ".join(self.shards.sources) or "none"
                raise ConfigError(f"phase {number}: {name}: unknown source {unknown!r}; known sources: {known}")

    def _weights(self, number: int, phase: Phase) -> NDArray[np.float64]:
        samples = self.shards.samples(phase.rows_per_sample)
        if phase.weights is None:
            weights = samples.astype(np.float64)
            wanted = np.ones(len(samples), dtype=bool)
        else:
            weights = np.array([float(phase.weights.get(name, 0.0)) for name in self.shards.sources])
            wanted = weights > 0
        for s in np.flatnonzero(wanted & (samples < self.streams)):
            raise ConfigError(
                f"phase {number}: source {self.shards.sources[s]!r} has {samples[s]} samples of "
                f"{phase.rows_per_sample} rows for {self.streams} streams; use fewer streams, a smaller "
                "rows_per_sample, or weights without it"
            )
        return weights

    def _counts(self, number: int, phase: Phase, weights: NDArray[np.float64]) -> I64:
        drawn = weights > 0
        if int(drawn.sum()) > BLOCK:
            raise ConfigError(f"phase {number}: {int(drawn.sum())} sources; a mixture has at most {BLOCK}: merge some")
        counts = largest_remainder(weights)
        missing = drawn & (counts == 0)
        if phase.weights is None:  # every source is drawn: small ones get one slot, taken from the largest
            for s in np.flatnonzero(missing):
                counts[np.argmax(counts)] -= 1
                counts[s] = 1
        elif missing.any():
            name = self.shards.sources[int(np.argmax(missing))]
            raise ConfigError(
                f"phase {number}: weights: source {name!r} gets less than one slot of {BLOCK}; give it at "
                f"least {1 / BLOCK:.4f} of the total, or 0"
            )
        return counts

    def _caps(self, phase: Phase, samples: I64) -> I64 | None:
        """Counters at which each source reaches its `repeat`: [sources, streams]; -1 where there is no limit."""
        if phase.repeat is None:
            return None
        if isinstance(phase.repeat, Mapping):
            repeat = np.array([float(phase.repeat.get(name, -1.0)) for name in self.shards.sources])
        else:
            repeat = np.full(len(self.shards.sources), float(phase.repeat))
        return np.where(repeat[:, None] < 0, -1, np.floor(repeat[:, None] * samples)).astype(np.int64)


def _until_exhausted(mixture: Mixture, base: I64, caps: I64 | None, most: int) -> tuple[int, list[int]]:
    """Slots (at most `most`) until a source would exceed its cap in some stream, and the sources that would."""
    if caps is None:
        return most, []
    source, stream = np.nonzero((mixture.counts[:, None] > 0) & (caps >= 0))
    if not source.size:
        return most, []
    number = np.maximum(caps[source, stream] - base[source, stream], 0)
    slots = mixture.backward(stream, source, number)
    first = int(slots.min())
    if first >= most:
        return most, []
    return first, sorted({int(s) for s in source[slots == first]})
