"""AdamW (Loshchilov and Hutter 2019) by PyTorch's fused kernel, on plain parameters and on shards.

`torch.optim.AdamW` calls the same kernel and gives the same bits, but its shards go through DTensor's dispatch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from stages.training.optim.base import OptimizerBase
from stages.training.parallelism.sharded import local

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW(OptimizerBase):
    """AdamW with decoupled weight decay.

    Args:
        groups: each with `params` and its `weight_decay`; fp32, whole or sharded.
        lr: initial learning rate of all groups.
        betas: decay rates of the averages of gradients and of their squares.
        eps: added to the denominator.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float = 1e-8):
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if not params:
                continue
            states = [self._state(p) for p in params]
            updates = [state["step"] for state in states]
            torch._foreach_add_(updates, 1)
            first, second = ([local(state[moment]) for state in states] for moment in MOMENTS)
            torch._fused_adamw_(
                [local(p) for p in params],
                [local(p.grad) for p in params],
                first,
                second,
                [],
                updates,
                lr=group["lr"],
                beta1=group["betas"][0],
                beta2=group["betas"][1],
                weight_decay=group["weight_decay"],
                eps=group["eps"],
                amsgrad=False,
                maximize=False,
            )

    def averages(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """A parameter's averages by name, created (as zeros) where there are none yet."""
        state = self._state(parameter)
        return {moment: state[moment] for moment in MOMENTS}

    @torch.no_grad()
    def update_squares(self) -> Tensor:
        """Sum of the squares of what the last update added to this rank's weights: a scalar on the device.

        AdamW takes w to w' = (1 - lr d) w - lr u, with decay d and u = m / c1 / (sqrt(v / c2) + eps), where c1 and c2
        are 1 - beta^t. So w' - w = -lr / (1 - lr d) (u + d w'): known after the update, without a copy of the weights
        from before it. One parameter at a time.
        """
        squares = []
        for group in self.param_groups:
            lr, decay, eps = group["lr"], group["weight_decay"], group["eps"]
            for parameter in group["params"]:
                state = self.state[parameter]
                if parameter.grad is None or not state:
                    continue
                # The count of updates is on the device: its powers are taken there, so that nothing waits.
                first, second = (1 - beta ** state["step"] for beta in group["betas"])
                root = second.sqrt()
                denominator = local(state["exp_avg_sq"]).sqrt().add_(eps * root)
                change = torch.div(local(state["exp_avg"]), denominator, out=denominator).mul_(root / first)
                change.add_(local(parameter.detach()), alpha=decay)
                squares.append(change.norm().square() * (lr / (1 - lr * decay)) ** 2)
        return torch.stack(squares).sum()

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for moment in MOMENTS:
                state[moment] = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
        return state
