"""From a batch's number to this rank's samples: the order, the map of shards, and one gather a batch.

The order is arithmetic over arrays, fastest over some thousand positions, while a batch has few. So it is computed for
stretches of batches: the first for one batch, which then comes at once, each that follows four times as long as the
one before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.store.errors import ConfigError
from stages.tokens.batch import ModelInputs, model_inputs, rank_slots
from stages.tokens.mapped import SLOTS, SlotsFullError
from stages.tokens.order import Order
from stages.tokens.reader import TokenReader

_GROWTH = 4
_MOST_POSITIONS = 1 << 14
"""Positions of a stretch: enough that numpy's cost per call does not count."""


@dataclass(frozen=True, eq=False, slots=True)
class TokenBatch:
    """One rank's part of a batch."""

    step: int
    """Number of the batch."""
    rows: NDArray[Any]
    """uint16 or uint32 [n, k * S], the samples as they are stored; n may be 0 on a short rank."""
    eos_id: int

    @property
    def ids(self) -> NDArray[np.int64]:
        """int64 [n, k * S]. Made at each call."""
        return self.rows.astype(np.int64)

    def model_inputs(self) -> ModelInputs:
        """Inputs, targets, positions and `cu_seqlens`. Made at each call."""
        return model_inputs(self.rows, self.eos_id)


class Loader:
    """The batches of one rank: by number, or one after another from any step on. For one thread at a time.

    Args:
        reader: the token stream.
        order: the order of the run, made from the reader's table of shards.
        batch: B, samples a batch over all ranks.
        rank, ranks: which part of every batch: `rank_slots`.
        step: the batch that iteration begins with.
        skip: ranges [first, end) of batch numbers that iteration leaves out.

    Raises:
        ConfigError: a batch that the lanes or a phase's samples are no multiple of, a rank or a step that is not there.
    """

    def __init__(
        self,
        reader: TokenReader,
        order: Order,
        batch: int,
        rank: int = 0,
        ranks: int = 1,
        *,
        step: int = 0,
        skip: Iterable[tuple[int, int]] = (),
    ):
        try:
            self._slots = rank_slots(batch, rank, ranks, order.lanes)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        for number, phase in enumerate(order.phases):
            if phase.samples % batch:
                raise ConfigError(f"phase {number}: {phase.samples} samples are not whole batches of {batch}")
        self.reader, self.order, self.batch_size = reader, order, batch
        self.steps = order.samples // batch
        """Batches in the run."""
        self.skip = sorted(skip)
        self.skipped: list[list[int]] = []
        """Ranges [first, end) that iteration left out so far."""
        self.step = self._checked(step)
        """The batch that iteration gives next."""
        self._mapped = reader.mapped(max(SLOTS, len(self._slots)))
        self._first = self._end = 0
        self._located = np.zeros(0, dtype=np.int64)
        self._k = 1
        self._most = max(1, _MOST_POSITIONS // max(1, len(self._slots)))

    def __getitem__(self, step: int) -> TokenBatch:
        """Batch number `step`, whatever iteration has reached.

        Raises:
            IndexError: a step outside the run.
            StoreError: a shard is missing or damaged.
        """
        if not self._first <= step < self._end:
            self._look_up(step)
        low = (step - self._first) * len(self._slots)
        return TokenBatch(
            step, self._mapped.take(self._located[low : low + len(self._slots)], self._k), self.reader.eos_id
        )

    def positions(self, step: int) -> NDArray[np.int64]:
        """Positions of the order that this rank takes in batch number `step`, in the order of its rows."""
        return step * self.batch_size + self._slots

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[TokenBatch]:
        return self

    def __next__(self) -> TokenBatch:
        self._pass_over_skipped()
        if self.step >= self.steps:
            raise StopIteration
        found = self[self.step]
        self.step += 1
        return found

    def state_dict(self) -> dict[str, Any]:
        """Where iteration stands, as plain JSON values. It is the same on every rank and fits any number of them."""
        return {"position": self.step * self.batch_size, "skipped": [list(part) for part in self.skipped]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a state, which a loader of other ranks may have left.

        Raises:
            ConfigError: a position that is no begin of a batch of this run.
        """
        step, rest = divmod(state["position"], self.batch_size)
        if rest:
            raise ConfigError(f"loader: position {state['position']} lies within a batch of {self.batch_size}")
        self.step, self.skipped = self._checked(step), [list(part) for part in state["skipped"]]

    def _checked(self, step: int) -> int:
        if not 0 <= step <= self.steps:
            raise ConfigError(f"loader: step {step} of a run with {self.steps}")
        return step

    def _pass_over_skipped(self) -> None:
        for first, end in self.skip:
            if first <= self.step < min(end, self.steps):
                self.skipped.append([self.step, end])
                self.step = min(end, self.steps)

    def _look_up(self, step: int) -> None:
        """Orders and maps the stretch of batches that begins with `step`."""
        if not 0 <= step < self.steps:
            raise IndexError(f"loader: step {step} of a run with {self.steps}")
        until = self.order.same_k_until(step * self.batch_size) // self.batch_size
        wanted = (self._end - self._first) * _GROWTH if step == self._end and self._first < self._end else 1
        while True:
            end = min(until, step + min(wanted, self._most))
            positions = np.arange(step, end)[:, None] * self.batch_size + self._slots
            found = self.order.at(positions.ravel())
            try:
                self._first = self._end = step  # what was located is lost, even if the next line fails
                self._located = self._mapped.locate(found.source, found.shard, found.row, found.k)
            except SlotsFullError:
                self._most = max(1, (end - step) // 2)
                continue
            self._end, self._k = end, self.order.k_at(step * self.batch_size)
            return
