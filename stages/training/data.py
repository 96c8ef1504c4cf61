"""From a batch's number to this rank's tensors: arithmetic on the order, then views of mapped files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.loss import IGNORED
from stages.tokens.batch import model_inputs, rank_slots
from stages.tokens.reader import TokenReader
from stages.training.config import TrainingConfig
from stages.training.plan import run_order


@dataclass
class DataState:
    """Where a run stands in its data: all that a resumed run needs to know."""

    update: int = 0
    """Updates made."""
    position: int = 0
    """First position of the order that was not looked at yet."""
    skipped: list[list[int]] = field(default_factory=list)
    """Ranges [first, end) of batch numbers that were left out so far."""

    def as_dict(self) -> dict[str, Any]:
        return {"update": self.update, "position": self.position, "skipped": self.skipped}


@dataclass(frozen=True)
class Batch:
    """This rank's part of a batch."""

    tokens: Tensor
    """int64 [n, T]; n may be 0 on a short rank."""
    targets: Tensor
    """int64 [n, T], the next token, IGNORED where there is nothing to learn."""

    @classmethod
    def of(cls, rows: NDArray[np.int64], eos_id: int) -> Batch:
        """From samples int64 [n, T + 1]."""
        arrays = model_inputs(rows, eos_id)
        return cls(torch.from_numpy(np.ascontiguousarray(arrays.inputs)), torch.from_numpy(arrays.targets))

    @property
    def valid(self) -> int:
        """Targets that count."""
        return int((self.targets != IGNORED).sum())


class TrainingData:
    """The batches of one run as one rank sees them.

    Raises:
        ConfigError: phases that cannot be drawn from these tokens.
        StoreError: the folder holds no token stream.
    """

    def __init__(self, folder: Path, digest: str, config: TrainingConfig, rank: int, world: int):
        self.reader = TokenReader(folder)
        self.order = run_order(self.reader.shards, digest, config)
        self.batch_size = config.batch
        self._slots = rank_slots(config.batch, rank, world, config.lanes)
        self.most_rows = -(-config.batch // world)
        """Sequences of the rank that has most."""

    def batch(self, number: int) -> Batch:
        """This rank's part of batch `number`."""
        first = number * self.batch_size
        k = self.order.k_at(first)
        found = self.order.at(first + self._slots)
        return Batch.of(self.reader.batch(found.triples, k), self.reader.eos_id)

    def sequence_length(self, number: int) -> int:
        """Tokens a sequence in batch `number`."""
        return self.order.k_at(number * self.batch_size) * self.reader.sequence_length
