"""Cross-entropy of a linear head that never holds all logits: rows are processed in chunks, with their gradients.

Following the idea of Cut Cross-Entropy (Wijmans et al. 2024) and Liger's fused linear cross-entropy, in plain
PyTorch: at 4096 x 256 x 16384 on a CPU it is as fast as the plain form and needs a quarter of its memory.

Used on GPUs too: `torch.nn.functional.linear_cross_entropy` returns the cross-entropy alone. The z-loss needs the
softmax's denominator, which it computes but does not return; recomputing it would cost a second pass over the head.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from models import IGNORE_INDEX
from models.kernels.library import kernels, threads
from models.matmul import WeightGradAccumulator, times_transposed

ROWS = 1024
"""Rows in a chunk: the logits of a chunk for 16,384 tokens are 64 MiB in fp32."""


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, z_loss: float
    ) -> tuple[Tensor, Tensor]:
        gradient = ctx.needs_input_grad[0] or ctx.needs_input_grad[1]
        nats, penalty = (torch.empty(len(targets), dtype=torch.float32, device=hidden.device) for _ in range(2))
        if gradient:
            grad_hidden = torch.empty_like(hidden)
        grad_weight = WeightGradAccumulator(weight) if ctx.needs_input_grad[1] else None  # a frozen head has none
        for start in range(0, len(targets), ROWS):
            rows = slice(start, start + ROWS)
            logits = times_transposed(hidden[rows], weight)
            g = _softmax(logits, targets[rows], scale, z_loss, nats[rows], penalty[rows], gradient)
            if gradient:
                grad_hidden[rows] = times_transposed(g, weight.T)
            if grad_weight is not None:
                grad_weight.add(g, hidden[rows])
        if gradient:
            ctx.save_for_backward(grad_hidden, grad_weight.total() if grad_weight is not None else None)
        ctx.mark_non_differentiable(nats)
        return (nats.sum() + penalty.sum()) * scale, nats

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor | None, None, None, None]:
        grad_hidden, grad_weight = ctx.saved_tensors
        return grad_hidden * grads[0], None if grad_weight is None else grad_weight * grads[0], None, None, None


def _softmax(
    logits: Tensor, targets: Tensor, scale: float, z_loss: float, nats: Tensor, penalty: Tensor, gradient: bool
) -> Tensor:
    """Fills nats and penalty (the z-loss) [rows]; returns the gradient of scale x their sum. The compiled loop
    overwrites the logits with it."""
    if loops := kernels(logits):
        rows, columns = logits.shape
        scratch = torch.empty(threads(), columns)
        loops("cross_entropy", rows, columns, logits, targets, scale, z_loss, int(gradient), nats, penalty, scratch)
        return logits
    keep, target = targets != IGNORE_INDEX, targets.clamp(min=0)[:, None]
    wide = logits.float()  # in bf16 the partition would have an error of up to 0.03
    partition = torch.logsumexp(wide, 1, keepdim=True)
    nats.copy_((partition - wide.gather(1, target))[:, 0] * keep)
    penalty.copy_(z_loss * partition.square()[:, 0] * keep)
    if not gradient:
        return logits
    factor = keep[:, None] * scale
    g = wide.sub_(partition).exp_().mul_(factor * (1 + 2 * z_loss * partition))
    return g.scatter_add_(1, target, -factor.expand_as(target).to(g.dtype)).to(logits.dtype)


def linear_cross_entropy(
    hidden: Tensor, weight: Tensor, targets: Tensor, scale: float = 1.0, z_loss: float = 0.0
) -> tuple[Tensor, Tensor]:
    """Cross-entropy of `softmax(hidden @ weight.T)` against `targets`.

    Args:
        hidden: [N, d], fp32 or bf16.
        weight: [V, d], of the same number format.
        targets: int64 [N]; rows of `IGNORE_INDEX` have no loss and a gradient of zero.
        scale: factor of the differentiable loss.
        z_loss: weight of the squared log of the softmax's denominator, added to the loss; 0 disables it.

    Returns:
        `(loss, nats)`: scale x (sum of all cross-entropies, plus the z-loss), and the cross-entropies, fp32 [N].
    """
    return _LinearCrossEntropy.apply(hidden, weight, targets, scale, z_loss)
