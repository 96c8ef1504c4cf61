"""The order of training: position -> (source, shard, first row), a pure function that can be run backwards.

Position p is position `p div C` of lane `p mod C`. Phases are made of stretches; in a stretch every block of 1,024
slots of a lane draws fixed counts per source (`mixture.py`), which turns a slot into a source and that source's own
counter; the counter gives a sample through the shuffle of the source's pieces (`pieces.py`). Everything comes from the
table of shards, a digest, a seed and the phases: never from rows, ranks, or the length of the run.

Counters run on through phases of equal k, and each k has counters of its own: a phase that returns to an earlier k goes
on where that k stopped.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from stages.store.errors import ConfigError
from stages.tokens.feistel import keyed
from stages.tokens.mixture import BLOCK, Mixture, largest_remainder
from stages.tokens.pieces import Pieces
from stages.tokens.table import ShardTable

I64 = NDArray[np.int64]

_PHASE = 5


@dataclass(frozen=True)
class Phase:
    """A part of a run with one mixture and one sample length."""

    samples: int
    """Samples in the phase; a multiple of the lanes (and, for training, of the batch)."""
    k: int = 1
    """Rows a sample, a power of two."""
    weights: Mapping[str, float] | None = None
    """Share of each source in tokens; sources that are not named are not drawn. None: by size, every source drawn (one
    slot of 1,024 at least)."""
    repeat: float | Mapping[str, float] | None = None
    """Most epochs of each source, counted from the start of the run at this k; None: no limit. A source that has used
    up its epochs leaves the mixture there."""


class Samples(NamedTuple):
    """Where the samples of some positions lie."""

    source: I64
    shard: I64
    row: I64
    """First row in the shard; the sample is rows `row` to `row + k - 1`."""
    k: int

    @property
    def triples(self) -> I64:
        """int64 [n, 3] of (source, shard, first row)."""
        return np.stack([self.source, self.shard, self.row], axis=1)


@dataclass(frozen=True, eq=False)
class Stretch:
    """Consecutive slots of every lane with one mixture: a phase, or a part of one between repeats used up."""

    phase: int
    start: int
    """First slot (of each lane)."""
    slots: int
    k: int
    base: I64
    """[sources, lanes]: counters at the first slot."""
    drawn: I64
    """[sources, lanes]: samples drawn in the stretch."""
    mixture: Mixture
    used_up: tuple[str, ...] = field(default=())
    """Sources whose repeat ends this stretch."""


class Order:
    """The order of one run.

    Args:
        shards: the table of shards of the token stream.
        digest: the tokens artifact's digest.
        seed: the run's seed.
        phases: what is drawn, in turn.
        window: consecutive pieces that are shuffled together.
        lanes: C.

    Raises:
        ConfigError: phases that cannot be drawn from these sources.
    """

    def __init__(
        self, shards: ShardTable, digest: str, seed: int, phases: Sequence[Phase], window: int, lanes: int = 1
    ):
        if window < 1 or lanes < 1:
            raise ConfigError(f"order: window ({window}) and lanes ({lanes}) must be at least 1")
        if not phases:
            raise ConfigError("order: there are no phases; give at least one")
        self.shards, self.phases, self.window, self.lanes = shards, tuple(phases), window, lanes
        self._key = int.from_bytes(hashlib.blake2b(f"{digest}\0{seed}".encode(), digest_size=8).digest(), "little")
        self._pieces: dict[int, Pieces] = {}
        self._counters: dict[int, I64] = {}
        self._stretches: list[Stretch] = []
        start = 0
        for number, phase in enumerate(self.phases):
            self._check(number, phase)
            start = self._lay(number, phase, start)
        self._ends = np.array([stretch.start + stretch.slots for stretch in self._stretches], dtype=np.int64)
        self.samples = start * lanes
        """Positions in the run."""

    def at(self, positions: ArrayLike) -> Samples:
        """The samples at some positions (int64 [n]), which must share one k: (source [n], shard [n], row [n], k).

        Raises:
            IndexError: a position outside the run.
            ValueError: positions of phases with different k.
        """
        p = np.asarray(positions, dtype=np.int64).ravel()
        if p.size and (int(p.min()) < 0 or int(p.max()) >= self.samples):
            raise IndexError(f"order: positions are 0 to {self.samples - 1}, got {int(p.min())} to {int(p.max())}")
        slot, lane = np.divmod(p, self.lanes) if self.lanes > 1 else (p, np.zeros_like(p))
        source, counter = np.empty_like(p), np.empty_like(p)
        used = self._used(slot)
        for index, here in used:
            stretch = self._stretches[index]
            since = slot[here] - stretch.start
            source[here], drawn = stretch.mixture.forward(lane[here], since // BLOCK, since % BLOCK)
            counter[here] = stretch.base[source[here], lane[here]] + drawn
        ks = {self._stretches[index].k for index, _ in used}
        if len(ks) > 1:
            raise ValueError(f"order: these positions have samples of different length (k = {sorted(ks)})")
        k = ks.pop() if ks else self.phases[0].k
        shard, row = self._pieces[k].forward(source, lane, counter)
        return Samples(source, shard, row, k)

    def _used(self, slot: I64) -> list[tuple[int, slice | NDArray[np.bool_]]]:
        """The stretches that slots lie in, each with its slots."""
        if not slot.size:
            return []
        low, high = np.searchsorted(self._ends, [slot.min(), slot.max()], side="right").tolist()
        if low == high:
            return [(low, slice(None))]
        which = np.searchsorted(self._ends, slot, side="right")
        return [(index, which == index) for index in np.unique(which).tolist()]

    def positions_of(self, source: int, shard: int, row: int) -> I64:
        """All positions of the run whose sample covers a row, ascending: int64 [m].

        A row that is left out at some k has no positions in phases of that k.

        Raises:
            IndexError: no such row.
        """
        return np.sort(self.occurrences(source, [shard], [row])[1])

    def occurrences(self, source: int, shard: ArrayLike, row: ArrayLike) -> tuple[I64, I64]:
        """All positions of the run whose samples cover some rows (shard [n], row [n]) of a source.

        Returns:
            (which of the rows int64 [m], position int64 [m]), in no order. Rows of one sample share its position.

        Raises:
            IndexError: a row that is not there.
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
        found = [self._occurrences_at(k, source, shards, rows) for k in self._pieces]
        which, positions = (np.concatenate([part[column] for part in found]) for column in range(2))
        return which, positions

    def k_at(self, position: int) -> int:
        """Rows a sample at one position."""
        return self._stretches[int(np.searchsorted(self._ends, position // self.lanes, side="right"))].k

    def same_k_until(self, position: int) -> int:
        """The first position after `position` with another k; `samples`, the end of the run, if there is none."""
        index = int(np.searchsorted(self._ends, position // self.lanes, side="right"))
        k = self._stretches[index].k
        for stretch in self._stretches[index:]:
            if stretch.k != k:
                return stretch.start * self.lanes
        return self.samples

    @property
    def stretches(self) -> tuple[Stretch, ...]:
        """The run's parts with one mixture each, in turn."""
        return tuple(self._stretches)

    @property
    def ks(self) -> tuple[int, ...]:
        """Lengths of samples that occur, in rows, ascending."""
        return tuple(sorted(self._pieces))

    def _occurrences_at(self, k: int, source: int, shard: I64, row: I64) -> tuple[I64, I64]:
        pieces = self._pieces[k]
        place = pieces.locate(source, shard, row)
        which, positions = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
        for piece in np.unique(place.piece).tolist():
            here = np.flatnonzero(place.piece == piece)
            lane = int(place.lane[here[0]])
            total = int(self._counters[k][source, lane])
            epochs = -(-total // int(pieces.samples[source, lane]))
            counters = pieces.counters(source, lane, piece, place.sample[here], epochs)
            owner = np.broadcast_to(place.which[here], counters.shape)
            for stretch in self._stretches:
                if stretch.k != k or not stretch.mixture.counts[source]:
                    continue
                number = counters - stretch.base[source, lane]
                inside = (number >= 0) & (number < stretch.drawn[source, lane])
                number = number[inside]
                slots = stretch.mixture.backward(np.full_like(number, lane), np.full_like(number, source), number)
                positions.append((slots + stretch.start) * self.lanes + lane)
                which.append(owner[inside])
        return np.concatenate(which), np.concatenate(positions)

    def _lay(self, number: int, phase: Phase, start: int) -> int:
        """Adds the stretches of one phase; returns the slot after it."""
        if phase.k not in self._pieces:
            self._pieces[phase.k] = Pieces(self.shards, phase.k, self.lanes, self.window, self._key)
            self._counters[phase.k] = np.zeros((len(self.shards.sources), self.lanes), dtype=np.int64)
        samples, weights = self._pieces[phase.k].samples, self._weights(number, phase)
        caps = self._caps(phase, samples)
        left, part = phase.samples // self.lanes, 0
        while left:
            if not weights.sum() > 0:
                raise ConfigError(
                    f"phase {number}: its sources are used up after {phase.samples - left * self.lanes} of "
                    f"{phase.samples} samples; raise `repeat`, add documents, or ask for fewer samples"
                )
            key = int(keyed(self._key, _PHASE, number, part)[0])
            mixture = Mixture(self._counts(number, phase, weights), key)
            base = self._counters[phase.k]
            slots, used_up = _until_used_up(mixture, base, caps, left)
            if slots:
                names = tuple(self.shards.sources[s] for s in used_up)
                drawn = mixture.drawn(self.lanes, slots)
                self._stretches.append(Stretch(number, start, slots, phase.k, base, drawn, mixture, names))
                self._counters[phase.k] = base + drawn
            weights = weights.copy()
            weights[used_up] = 0
            start, left, part = start + slots, left - slots, part + 1
        return start

    def _check(self, number: int, phase: Phase) -> None:
        if phase.k < 1 or phase.k & (phase.k - 1):
            raise ConfigError(f"phase {number}: k is {phase.k}; it must be a power of two")
        if phase.samples < 1 or phase.samples % self.lanes:
            raise ConfigError(
                f"phase {number}: {phase.samples} samples; it must be a positive multiple of the {self.lanes} lanes"
            )
        repeat = phase.repeat if isinstance(phase.repeat, Mapping) else {"": phase.repeat}
        for name, names in (("weights", set(phase.weights or ())), ("repeat", set(repeat) - {""})):
            for unknown in sorted(names - set(self.shards.sources)):
                there = ", ".join(self.shards.sources) or "none"
                raise ConfigError(f"phase {number}: {name}: unknown source {unknown!r}; there are {there}")
        for epochs in repeat.values():
            if epochs is not None and not (math.isfinite(epochs) and epochs > 0):
                raise ConfigError(f"phase {number}: repeat: {epochs} epochs; it must be a number above 0")

    def _weights(self, number: int, phase: Phase) -> NDArray[np.float64]:
        samples = self.shards.samples(phase.k)
        if phase.weights is None:
            weights = samples.astype(np.float64)
            wanted = np.ones(len(samples), dtype=bool)
        else:
            weights = np.array([float(phase.weights.get(name, 0.0)) for name in self.shards.sources])
            for name, weight in zip(self.shards.sources, weights.tolist(), strict=True):
                if not (math.isfinite(weight) and weight >= 0):
                    raise ConfigError(f"phase {number}: weights: {name!r} has {weight}; it must be a number, 0 or more")
            if not weights.sum() > 0:
                raise ConfigError(f"phase {number}: weights: all are 0; give at least one source a positive weight")
            wanted = weights > 0
        for s in np.flatnonzero(wanted & (samples < self.lanes)):
            raise ConfigError(
                f"phase {number}: source {self.shards.sources[s]!r} has {samples[s]} samples at k = {phase.k} for "
                f"{self.lanes} lanes; use fewer lanes, a smaller k, or give weights that leave it out"
            )
        return weights

    def _counts(self, number: int, phase: Phase, weights: NDArray[np.float64]) -> I64:
        drawn = weights > 0
        if int(drawn.sum()) > BLOCK:
            raise ConfigError(f"phase {number}: {int(drawn.sum())} sources; a mixture holds at most {BLOCK}: join some")
        counts = largest_remainder(weights)
        missing = drawn & (counts == 0)
        if phase.weights is None:  # a small source still belongs to the whole: a slot each, taken from the largest
            for s in np.flatnonzero(missing):
                counts[np.argmax(counts)] -= 1
                counts[s] = 1
        elif missing.any():
            name = self.shards.sources[int(np.argmax(missing))]
            raise ConfigError(
                f"phase {number}: weights: source {name!r} has less than a slot of {BLOCK}; give it at "
                f"least {1 / BLOCK:.4f} of the whole, or 0"
            )
        return counts

    def _caps(self, phase: Phase, samples: I64) -> I64 | None:
        """Counters at which each source is used up: [sources, lanes]; -1 where there is no limit."""
        if phase.repeat is None:
            return None
        if isinstance(phase.repeat, Mapping):
            repeat = np.array([float(phase.repeat.get(name, -1.0)) for name in self.shards.sources])
        else:
            repeat = np.full(len(self.shards.sources), float(phase.repeat))
        return np.where(repeat[:, None] < 0, -1, np.floor(repeat[:, None] * samples)).astype(np.int64)


def epoch_samples(shards: ShardTable, k: int = 1) -> int:
    """Samples of k rows in one pass over all sources. See `ShardTable.left_out` for the rows that it leaves out."""
    return int(shards.samples(k).sum())


def _until_used_up(mixture: Mixture, base: I64, caps: I64 | None, most: int) -> tuple[int, list[int]]:
    """Slots (at most `most`) until a source would pass its cap in some lane, and the sources that do so there."""
    if caps is None:
        return most, []
    source, lane = np.nonzero((mixture.counts[:, None] > 0) & (caps >= 0))
    if not source.size:
        return most, []
    number = np.maximum(caps[source, lane] - base[source, lane], 0)
    slots = mixture.backward(lane, source, number)
    first = int(slots.min())
    if first >= most:
        return most, []
    return first, sorted({int(s) for s in source[slots == first]})
