"""One update of the weights: forward and backward over micro-batches, clipping, the optimizers' step.

Nothing here knows where a batch comes from or what is recorded of it. A batch's gradients are computed first, and then
applied or discarded, as the caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist
from torch import Tensor

from models import IGNORE_INDEX
from models.decoder import Decoder
from stages.training.metrics.phase_clock import PhaseClock
from stages.training.optim.optimizers import Optimizers, clip_gradients, weight_squares
from stages.training.parallelism.ranks import Ranks, set_last_micro_batch

if TYPE_CHECKING:
    from stages.training.config import OptimizerConfig
    from stages.training.loop.data import Batch


@dataclass(frozen=True)
class Computed:
    """What is known of a batch once its gradients are computed: scalars on the device; reading one waits for it."""

    nats: Tensor
    """Cross-entropy summed over this rank's targets, fp64."""
    grad_norm: Tensor
    """Norm of the gradient over all ranks, before it was clipped."""


@dataclass(frozen=True)
class Norms:
    """Of all weights that are trained, over all ranks: scalars on the device."""

    update: Tensor
    """Norm of what an update added to the weights, decay included."""
    weights: Tensor
    """Norm of the weights after it."""


@dataclass(frozen=True)
class Applied:
    """What is known of an update that was made."""

    lr: float
    """The learning rate that it took."""
    norms: Norms | None
    """Where they were measured."""


class Updater:
    """Makes updates of one model. Every rank makes the same calls in the same order.

    Args:
        replicas: copies of the model among the ranks.
        clock: takes the times of forward, backward and optimizer.
        max_rows: sequences of the rank that has most: each rank runs as many micro-batches as that one, since FSDP
            needs equal collectives.
    """

    def __init__(
        self,
        model: Decoder,
        optimizers: Optimizers,
        config: OptimizerConfig,
        ranks: Ranks,
        clock: PhaseClock,
        max_rows: int,
        replicas: int = 1,
    ):
        self.model, self.optimizers, self.config, self.ranks = model, optimizers, config, ranks
        self.clock, self.max_rows, self.replicas = clock, max_rows, replicas

    def compute(self, batch: Batch, valid: float, micro_batch_size: int) -> Computed:
        """Computes the clipped gradients of a batch; `apply` or `discard` must follow.

        Args:
            batch: this rank's part.
            valid: targets that count in the whole batch, over all ranks: what the summed loss is divided by.
            micro_batch_size: sequences in a forward pass. It decides how sums are rounded and nothing else.
        """
        count = -(-self.max_rows // micro_batch_size)
        scale = 1.0 / max(1.0, valid)
        nats = torch.zeros((), dtype=torch.float64, device=self.ranks.device)
        for index in range(count):
            part = slice(index * micro_batch_size, (index + 1) * micro_batch_size)
            tokens, targets = batch.tokens[part], batch.targets[part]
            if not len(tokens):  # a short rank: one sequence of weight zero
                tokens = batch.tokens.new_zeros(1, batch.tokens.shape[1])
                targets = torch.full_like(tokens, IGNORE_INDEX)
            set_last_micro_batch(self.model, index == count - 1)
            tokens = tokens.to(self.ranks.device, non_blocking=True)
            targets = targets.to(self.ranks.device, non_blocking=True)
            with self.clock.phase("forward"):
                loss, costs = self.model(tokens, targets, scale, self.config.z_loss)
                nats += costs.sum(dtype=torch.float64)
            with self.clock.phase("backward"):
                loss.backward()
        with self.clock.phase("optimizer"):
            norm = clip_gradients(self.model, self.config.grad_clip, self.ranks.alone, self.replicas)
        return Computed(nats, norm)

    def apply(self, step: int, measure: bool = False) -> Applied:
        """Makes the update of batch `step` from its gradients.

        Args:
            measure: also computes the norms of update and weights, on all ranks or on none; it costs as much as half an
                optimizer's step.
        """
        with self.clock.phase("optimizer"):
            lr = self.optimizers.step(step, measure=measure)
            norms = self._norms() if measure else None
            self.optimizers.zero_grad()
        return Applied(lr, norms)

    def _norms(self) -> Norms:
        squares = torch.stack([self.optimizers.update_squares(), weight_squares(self.model)])
        if not self.ranks.alone:
            dist.all_reduce(squares)
            squares /= self.replicas  # each copy has counted everything once
        update, weights = squares.sqrt()
        return Norms(update, weights)

    def discard(self) -> None:
        """Discards the gradients: weights, the optimizers' averages and their count of updates keep every bit."""
        self.optimizers.zero_grad()
