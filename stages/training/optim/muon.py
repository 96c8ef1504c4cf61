"""Muon (Jordan et al. 2024): momentum with all its singular values set to about one. For the hidden matrices.

A shard's singular values are not the matrix's, so each matrix is put together for the update: W matrices of a shape at
a time, one on each of W ranks, by one exchange, and sent back in shards by another. So every rank does its share of the
products, and the update is that of one process.

The step is scaled as AdamW's would be (0.2 sqrt(max(rows, columns)), Liu et al. 2025), so that learning
rate and weight decay mean the same for both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from stages.training.optim.base import OptimizerBase
from stages.training.parallelism.sharded import local

MOMENTUM = "momentum"
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
"""Of the quintic iteration; they raise small singular values fastest, and bring all into 0.7 to 1.2."""
ITERATIONS = 5
STACKED = 8
"""Matrices that are worked on together: more do not make the products faster, and all are held at once."""


class Muon(OptimizerBase):
    """Muon with Nesterov momentum and decoupled weight decay.

    Args:
        params: matrices, whole or sharded by rows (`Shard(0)`), all on one mesh.
        lr: learning rate, as AdamW's.
        weight_decay: as AdamW's.
        momentum: decay rate of the average of gradients.
        dtype: number format of the products.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter],
        lr: float,
        weight_decay: float,
        momentum: float = 0.95,
        dtype: torch.dtype = torch.bfloat16,
    ):
        super().__init__(params, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        self.dtype = dtype
        self._update_squares: Tensor | None = None

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all matrices that have a gradient."""
        device = self.param_groups[0]["params"][0].device
        self._update_squares = torch.zeros((), device=device) if self.measure_next_update else None
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            averages = [local(self.averages(p)[MOMENTUM]) for p in params]
            grads = [local(p.grad) for p in params]
            torch._foreach_lerp_(averages, grads, 1 - group["momentum"])
            updates = torch._foreach_lerp(grads, averages, group["momentum"])
            torch._foreach_mul_([local(p) for p in params], 1 - group["lr"] * group["weight_decay"])
            for same in _by_shape(params):
                for parameter, update in zip(
                    (params[n] for n in same),
                    self._orthogonal([params[n] for n in same], [updates[n] for n in same]),
                    strict=True,
                ):
                    step, weight = group["lr"] * 0.2 * max(parameter.shape) ** 0.5, local(parameter)
                    if self._update_squares is not None:
                        shrunk = group["lr"] * group["weight_decay"] / (1 - group["lr"] * group["weight_decay"])
                        self._update_squares += (shrunk * weight + step * update).norm().square()
                    weight.add_(update, alpha=-step)

    def averages(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """A parameter's averages by name, created (as zeros) where there are none yet."""
        state = self.state[parameter]
        if MOMENTUM not in state:
            state[MOMENTUM] = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
        return {MOMENTUM: state[MOMENTUM]}

    def update_squares(self) -> Tensor:
        """Sum of the squares of what the last update added to this rank's weights: a scalar on the device."""
        assert self._update_squares is not None, "the last step was not asked to measure its update"
        return self._update_squares

    def _orthogonal(self, params: Sequence[nn.Parameter], updates: Sequence[Tensor]) -> Iterator[Tensor]:
        """This rank's part of each orthogonalised update, for parameters of one shape, in order."""
        group = _shard_group(params[0])
        if group is None:
            for first in range(0, len(updates), STACKED):
                yield from orthogonalize(torch.stack([*updates[first : first + STACKED]]), self.dtype)
            return
        for first in range(0, len(updates), group.size()):
            some = updates[first : first + group.size()]
            yield from _exchange(some, params[0].shape, group, self.dtype)


def orthogonalize(matrices: Tensor, dtype: torch.dtype) -> Tensor:
    """U S' V^T for each M = U S V^T of matrices [n, rows, columns], S' near one, by Newton-Schulz iterations."""
    a, b, c = COEFFICIENTS
    tall = matrices.shape[1] > matrices.shape[2]
    x = (matrices.mT if tall else matrices).to(dtype)
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return (x.mT if tall else x).to(matrices.dtype)


def _by_shape(params: Sequence[nn.Parameter]) -> list[list[int]]:
    """Numbers of the parameters of each shape, in order."""
    found: dict[torch.Size, list[int]] = {}
    for number, parameter in enumerate(params):
        found.setdefault(parameter.shape, []).append(number)
    return [*found.values()]


def _shard_group(parameter: nn.Parameter) -> Any:
    """The ranks that hold a row shard each; None for a whole matrix."""
    placements = getattr(parameter, "placements", ())
    dims = [number for number, placement in enumerate(placements) if placement.is_shard()]
    if not dims:
        return None
    assert len(dims) == 1 and placements[dims[0]].dim == 0, placements
    return parameter.device_mesh.get_group(dims[0])  # type: ignore[attr-defined]


def _exchange(shards: Sequence[Tensor], shape: torch.Size, group: Any, dtype: torch.dtype) -> Iterator[Tensor]:
    """Shards of up to one matrix per rank: each is gathered whole on one rank, orthogonalised, and scattered back."""
    rank, world = group.rank(), group.size()
    rows, columns = shape
    shard_rows = -(-rows // world)  # as FSDP cuts: the last ranks may have fewer rows, or none
    of_rank = [max(0, min(shard_rows, rows - number * shard_rows)) * columns for number in range(world)]
    sent = [of_rank[rank] if number < len(shards) else 0 for number in range(world)]
    received = of_rank if rank < len(shards) else [0] * world
    mine = shards[0].new_empty(sum(received))
    dist.all_to_all_single(mine, torch.cat([shard.reshape(-1) for shard in shards]), received, sent, group=group)
    if len(mine):
        mine = orthogonalize(mine.view(1, rows, columns), dtype).reshape(-1)
    back = shards[0].new_empty(sum(sent))
    dist.all_to_all_single(back, mine, sent, received, group=group)
    for number, shard in enumerate(shards):
        yield back[number * of_rank[rank] : (number + 1) * of_rank[rank]].view(shard.shape)
