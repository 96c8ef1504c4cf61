"""One update of the weights: forward and backward over micro-batches, clipping, the optimizer's step.

Nothing here knows where a batch comes from, what its number is, or who is told what came of it. A batch's gradients are
computed first, and then applied or thrown away, as the caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from models.decoder import Decoder
from models.loss import IGNORED
from stages.training.metrics.phase_clock import PhaseClock
from stages.training.optim.optimizer import Optimizers, clip_gradients, set_learning_rate
from stages.training.optim.update_norm import change_squares, watch_next_update, weight_squares
from stages.training.parallelism.ranks import Ranks, last_micro_batch

if TYPE_CHECKING:
    from stages.training.config import TrainingConfig
    from stages.training.loop.data import Batch


@dataclass(frozen=True)
class Computed:
    """What is known of a batch whose gradients are there: scalars on the device, to read one waits for it."""

    nats: Tensor
    """Cross-entropy summed over this rank's targets, fp64."""
    norm: Tensor
    """Norm of the gradient over all ranks, before it was clipped."""


@dataclass(frozen=True)
class Norms:
    """Of all weights, over all ranks: scalars on the device."""

    update: Tensor
    """Norm of what an update added to the weights, decay included."""
    weights: Tensor
    """Norm of the weights after it."""


class Updater:
    """Makes updates of one model. Every rank makes the same calls in the same order.

    Args:
        clock: is told when forward, backward and optimizer are at work.
        most_rows: sequences of the rank that has most: each rank runs as many micro-batches as that one, since FSDP
            needs equal collectives.
    """

    def __init__(
        self,
        model: Decoder,
        optimizer: Optimizers,
        config: TrainingConfig,
        ranks: Ranks,
        clock: PhaseClock,
        most_rows: int,
    ):
        self.model, self.optimizer, self.config, self.ranks = model, optimizer, config, ranks
        self.clock, self.most_rows = clock, most_rows

    def compute(self, batch: Batch, valid: float, micro_batch: int) -> Computed:
        """Computes the clipped gradients of a batch; `apply` or `discard` must follow.

        Args:
            batch: this rank's part.
            valid: targets that count in the whole batch, over all ranks: what the summed loss is divided by.
            micro_batch: sequences a forward pass. It decides how sums are rounded and nothing else.
        """
        count = -(-self.most_rows // micro_batch)
        scale = 1.0 / max(1.0, valid)
        nats = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        for index in range(count):
            part = slice(index * micro_batch, (index + 1) * micro_batch)
            tokens, targets = batch.tokens[part], batch.targets[part]
            if not len(tokens):  # a short rank: one sequence of weight zero
                tokens = batch.tokens.new_zeros(1, batch.tokens.shape[1])
                targets = torch.full_like(tokens, IGNORED)
            last_micro_batch(self.model, index == count - 1)
            tokens = tokens.to(self.ranks.device, non_blocking=True)
            targets = targets.to(self.ranks.device, non_blocking=True)
            with self.clock.phase("forward"):
                loss, costs = self.model(tokens, targets, scale, self.config.z_loss)
                nats += costs.sum(dtype=torch.float64)
            with self.clock.phase("backward"):
                loss.backward()
        with self.clock.phase("optimizer"):
            norm = clip_gradients(self.model, self.config.grad_clip, self.ranks.alone, self.config.replicas)
        return Computed(nats, norm)

    def apply(self, learning_rate: float, measure: bool = False) -> Norms | None:
        """Makes the update from the gradients that are there.

        Args:
            measure: also computes the norms of update and weights, all ranks or none; it costs as much as half an
                optimizer's step.
        """
        with self.clock.phase("optimizer"):
            set_learning_rate(self.optimizer, learning_rate)
            if measure:
                watch_next_update(self.optimizer)
            self.optimizer.step()
            norms = self._norms() if measure else None
            self.optimizer.zero_grad()
        return norms

    def _norms(self) -> Norms:
        squares = torch.stack([change_squares(self.optimizer), weight_squares(self.model)])
        if not self.ranks.alone:
            dist.all_reduce(squares)
            squares /= self.config.replicas  # each copy has counted everything once
        update, weights = squares.sqrt()
        return Norms(update, weights)

    def discard(self) -> None:
        """Throws the gradients away: weights, the optimizer's averages and its count of updates keep every bit."""
        self.optimizer.zero_grad()
