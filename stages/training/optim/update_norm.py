"""How far an update moved the weights, without a copy of them from before it.

Adam's averages say what its update was; Muon, whose update is not kept, sums it up while it makes it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.training.optim.adamw import AdamW
from stages.training.optim.muon import Muon
from stages.training.optim.optimizer import Optimizers
from stages.training.parallelism.sharded import local


def watch_next_update(optimizer: Optimizers) -> None:
    """Must be called before an update whose `change_squares` are asked for."""
    for part in optimizer.parts:
        if isinstance(part, Muon):
            part.change_squares = torch.zeros((), device=part.param_groups[0]["params"][0].device)


@torch.no_grad()
def change_squares(optimizer: Optimizers) -> Tensor:
    """Sum of the squares of what the last update added to this rank's weights: a scalar on the device."""
    total: Tensor | float = 0.0
    for part in optimizer.parts:
        if isinstance(part, Muon):
            assert part.change_squares is not None, "watch_next_update was not called"
            total, part.change_squares = total + part.change_squares, None
        else:
            total = total + _adam_squares(part)
    assert isinstance(total, Tensor)
    return total


@torch.no_grad()
def weight_squares(model: nn.Module) -> Tensor:
    """Sum of the squares of this rank's weights: a scalar on the device."""
    weights = [local(p.detach()) for p in model.parameters()]
    return torch.stack([*torch._foreach_norm(weights)]).square().sum()


def _adam_squares(adam: AdamW) -> Tensor:
    """AdamW takes w to w' = (1 - lr d) w - lr u, with decay d and u = m / c1 / (sqrt(v / c2) + eps), where c1 and c2
    are 1 - beta^t. So w' - w = -lr / (1 - lr d) (u + d w'): known from what is there after the update. One parameter at
    a time."""
    squares = []
    for group in adam.param_groups:
        rate, decay, eps = group["lr"], group["weight_decay"], group["eps"]
        for parameter in group["params"]:
            state = adam.state[parameter]
            if parameter.grad is None or not state:
                continue
            # The count of updates is on the device: its powers are taken there, so that nothing waits.
            first, second = (1 - beta ** state["step"] for beta in group["betas"])
            root = second.sqrt()
            denominator = local(state["exp_avg_sq"]).sqrt().add_(eps * root)
            change = torch.div(local(state["exp_avg"]), denominator, out=denominator).mul_(root / first)
            change.add_(local(parameter.detach()), alpha=decay)
            squares.append(change.norm().square() * (rate / (1 - rate * decay)) ** 2)
    return torch.stack(squares).sum()
