"""One update of the weights: forward and backward over micro-batches, clipping, the optimizer's step.

Nothing here knows where a batch comes from, what its number is, or who is told what came of it. A batch's gradients are
computed first, and then applied or thrown away, as the caller decides.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from models.decoder import Decoder
from models.loss import IGNORED
from stages.training.config import TrainingConfig
from stages.training.data import Batch
from stages.training.optimizer import Optimizers, clip_gradients, set_learning_rate
from stages.training.parallel import Ranks, last_micro_batch


@dataclass(frozen=True)
class Computed:
    """What is known of a batch whose gradients are there: scalars on the device, to read one waits for it."""

    nats: Tensor
    """Cross-entropy summed over this rank's targets, fp64."""
    norm: Tensor
    """Norm of the gradient over all ranks, before it was clipped."""


class Updater:
    """Makes updates of one model. Every rank makes the same calls in the same order.

    Args:
        most_rows: sequences of the rank that has most: each rank runs as many micro-batches as that one, since FSDP
            needs equal collectives.
    """

    def __init__(self, model: Decoder, optimizer: Optimizers, config: TrainingConfig, ranks: Ranks, most_rows: int):
        self.model, self.optimizer, self.config, self.ranks = model, optimizer, config, ranks
        self.most_rows = most_rows

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
            loss, costs = self.model(tokens, targets, scale, self.config.z_loss)
            loss.backward()
            nats += costs.sum(dtype=torch.float64)
        return Computed(nats, clip_gradients(self.model, self.config.grad_clip, self.ranks.alone))

    def apply(self, learning_rate: float) -> None:
        """Makes the update from the gradients that are there."""
        set_learning_rate(self.optimizer, learning_rate)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def discard(self) -> None:
        """Throws the gradients away: weights, the optimizer's averages and its count of updates keep every bit."""
        self.optimizer.zero_grad()
