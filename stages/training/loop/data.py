"""From a batch's number to this rank's tensors: the tokens' loader, and on a GPU a thread ahead of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from models import IGNORE_INDEX
from stages.tokens.batch import model_inputs
from stages.tokens.loader import Loader
from stages.tokens.prefetch import Prefetch
from stages.tokens.reader import TokenReader
from stages.training.config import TrainingConfig
from stages.training.preflight.checks import check_ids, check_stream
from stages.training.preflight.plan import run_order


@dataclass
class DataState:
    """Where a run stands in its data: all that a resumed run needs to know."""

    update: int = 0
    """Updates made."""
    position: int = 0
    """The next position of the order."""
    skipped: list[list[int]] = field(default_factory=list)
    """Ranges [first, end) of batch numbers that were skipped so far."""

    @property
    def skipped_ranges(self) -> list[tuple[int, int]]:
        """`skipped`, as pairs."""
        return [(first, end) for first, end in self.skipped]

    def as_dict(self) -> dict[str, Any]:
        return {"update": self.update, "position": self.position, "skipped": self.skipped}


@dataclass(frozen=True)
class Batch:
    """This rank's part of a batch."""

    tokens: Tensor
    """int64 [n, T]; n may be 0 on a short rank."""
    targets: Tensor
    """int64 [n, T], the next token, IGNORE_INDEX where there is nothing to learn."""

    @classmethod
    def of(cls, rows: NDArray[Any], eos_id: int) -> Batch:
        """From samples [n, T + 1]."""
        arrays = model_inputs(rows, eos_id)
        return cls(torch.from_numpy(arrays.inputs), torch.from_numpy(arrays.targets))

    def pinned(self) -> Batch:
        """The same in pinned memory, from which a GPU copies by itself."""
        return Batch(self.tokens.pin_memory(), self.targets.pin_memory())

    @property
    def valid(self) -> int:
        """Targets that count."""
        return int((self.targets != IGNORE_INDEX).sum())


class TrainingData:
    """The batches of one run as one rank sees them.

    Args:
        ahead: makes batches in a thread, in pinned memory, while the one before is computed on: for GPUs. On CPUs the
            thread would only take the time from the computing ones.

    Raises:
        ConfigError: phases that cannot be drawn from these tokens.
        StoreError: the folder holds no token stream, or parts of several.
    """

    def __init__(
        self, folder: Path, digest: str, config: TrainingConfig, rank: int, world: int, *, ahead: bool = False
    ):
        self.reader = TokenReader(folder)
        self.order = run_order(self.reader.shards, digest, config)
        self.batch_size = batch_size = config.data.global_batch_size
        check_stream(self.reader)
        self._loader = loader = Loader(self.reader, self.order, batch_size, rank, world)
        self._ahead = Prefetch(lambda number: _batch(loader, number).pinned(), len(loader)) if ahead else None
        self.max_rows = -(-batch_size // world)
        """Sequences of the rank that has most."""

    def batch(self, number: int) -> Batch:
        """This rank's part of batch `number`."""
        return self._ahead[number] if self._ahead else _batch(self._loader, number)

    def sequence_length(self, number: int) -> int:
        """Tokens a sequence in batch `number`."""
        return self.order.rows_per_sample_at(number * self.batch_size) * self.reader.sequence_length


def _batch(loader: Loader, number: int) -> Batch:
    """Batch `number` as the rank of this loader sees it.

    Raises:
        StoreError: ids beyond the vocabulary, or a shard that is missing or damaged.
    """
    found, reader = loader[number], loader.reader
    check_ids(found.rows, reader, lambda: loader.order.at(loader.positions(number)).triples)
    return Batch.of(found.rows, found.eos_id)
