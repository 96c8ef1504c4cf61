"""From a batch's number to this rank's samples: the order, the mapped shards, and one gather per batch.

The order is array arithmetic, fastest over some thousand positions, while a batch has few. So it is computed for runs
of consecutive batches: the first run is one batch, which is then available at once, each next run is four times as
long as the one before.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stages.store.errors import ConfigError
from stages.tokens.batch import rank_slots
from stages.tokens.mapped import SLOTS, SlotsFullError
from stages.tokens.order import Order
from stages.tokens.reader import TokenReader

_GROWTH = 4
_MOST_POSITIONS = 1 << 14
"""Maximum positions in a run of batches: enough that numpy's cost per call is negligible."""


@dataclass(frozen=True, eq=False, slots=True)
class TokenBatch:
    """One rank's part of a batch."""

    step: int
    """Number of the batch."""
    rows: NDArray[Any]
    """uint16 or uint32 [n, rows_per_sample * S], the samples as they are stored; n may be 0 on a short rank."""
    eos_id: int


class Loader:
    """The batches of one rank, by number. Not thread-safe.

    Args:
        reader: the token stream.
        order: the order of the run, made from the reader's table of shards.
        global_batch_size: B, samples in a batch over all ranks.
        rank, ranks: select the part of every batch, see `rank_slots`.

    Raises:
        ConfigError: a batch size that is not a multiple of the data streams, a phase that is not whole batches, or a
            rank outside [0, ranks).
    """

    def __init__(
        self,
        reader: TokenReader,
        order: Order,
        global_batch_size: int,
        rank: int = 0,
        ranks: int = 1,
    ):
        try:
            self._slots = rank_slots(global_batch_size, rank, ranks, order.streams)
        except ValueError as error:
            raise ConfigError(f"loader: {error}") from error
        for number, phase in enumerate(order.phases):
            if phase.samples % global_batch_size:
                raise ConfigError(
                    f"phase {number}: {phase.samples} samples are not a multiple of the global batch size "
                    f"{global_batch_size}"
                )
        self.reader, self.order, self.global_batch_size = reader, order, global_batch_size
        self._steps = order.samples // global_batch_size
        self._mapped = reader.mapped(max(SLOTS, len(self._slots)))
        self._first = self._end = 0
        self._located = np.zeros(0, dtype=np.int64)
        self._rows_per_sample = 1
        self._most = max(1, _MOST_POSITIONS // max(1, len(self._slots)))

    def __getitem__(self, step: int) -> TokenBatch:
        """This rank's part of batch number `step`. Consecutive numbers are fastest.

        Raises:
            IndexError: a step outside the run.
            StoreError: a shard is missing or damaged.
        """
        if not self._first <= step < self._end:
            self._look_up(step)
        low = (step - self._first) * len(self._slots)
        located = self._located[low : low + len(self._slots)]
        return TokenBatch(step, self._mapped.take(located, self._rows_per_sample), self.reader.eos_id)

    def positions(self, step: int) -> NDArray[np.int64]:
        """Positions of the order that belong to this rank in batch number `step`, one per row of the batch."""
        return step * self.global_batch_size + self._slots

    def __len__(self) -> int:
        """Batches in the run."""
        return self._steps

    def _look_up(self, step: int) -> None:
        """Computes the order and maps the shards of the run of batches that begins with `step`."""
        if not 0 <= step < self._steps:
            raise IndexError(f"loader: step {step} is not in 0 to {self._steps - 1}")
        until = self.order.same_length_until(step * self.global_batch_size) // self.global_batch_size
        wanted = (self._end - self._first) * _GROWTH if step == self._end and self._first < self._end else 1
        while True:
            end = min(until, step + min(wanted, self._most))
            positions = np.arange(step, end)[:, None] * self.global_batch_size + self._slots
            found = self.order.at(positions.ravel())
            try:
                self._first = self._end = step  # the next line invalidates what was located, even if it fails
                self._located = self._mapped.locate(found.source, found.shard, found.row, found.rows_per_sample)
            except SlotsFullError:
                self._most = max(1, (end - step) // 2)
                continue
            self._end, self._rows_per_sample = end, self.order.rows_per_sample_at(step * self.global_batch_size)
            return
