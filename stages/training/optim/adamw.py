"""AdamW (Loshchilov and Hutter 2019) by PyTorch's fused kernel, on plain parameters and on shards.

`torch.optim.AdamW` calls the same kernel and gives the same bits. But it loads PyTorch's compiler, and SymPy with it,
which takes half as long as PyTorch itself; and shards go through DTensor's dispatch.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from stages.training.parallelism.sharded import local

MOMENTS = ("exp_avg", "exp_avg_sq")


class AdamW:
    """AdamW with decoupled weight decay.

    Args:
        groups: each with `params` and its `weight_decay`; fp32, whole or sharded.
        lr: learning rate of all groups at first.
        betas: decay rates of the averages of gradients and of their squares.
        eps: added to the denominator.
    """

    def __init__(self, groups: Iterable[dict[str, Any]], lr: float, betas: tuple[float, float], eps: float = 1e-8):
        self.param_groups = [{"lr": lr, "betas": betas, "eps": eps, **group} for group in groups]
        self.state: dict[Tensor, dict[str, Tensor]] = {}

    @torch.no_grad()
    def step(self) -> None:
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
        """The averages that are kept of a parameter, by name, made (as zeros) where there are none yet."""
        state = self._state(parameter)
        return {moment: state[moment] for moment in MOMENTS}

    def _state(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        state = self.state.setdefault(parameter, {})
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for moment in MOMENTS:
                state[moment] = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
        return state
