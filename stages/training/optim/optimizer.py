"""AdamW, and Muon beside it for the hidden matrices: groups, and state under parameter names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from stages.training.optim.adamw import AdamW
from stages.training.optim.muon import Muon
from stages.training.parallelism.sharded import local

if TYPE_CHECKING:
    from stages.training.config import TrainingConfig


class Optimizers:
    """Several optimizers, each of some of the parameters, that take their steps together."""

    def __init__(self, parts: Sequence[AdamW | Muon]):
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for part in self.parts for group in part.param_groups]

    def step(self) -> None:
        for part in self.parts:
            part.step()

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None


def build_optimizer(model: nn.Module, config: TrainingConfig, peak: float, dtype: torch.dtype) -> Optimizers:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW for all. Norms and the embedding do not decay.

    Args:
        dtype: number format of Muon's products.
    """
    hidden: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if parameter.ndim == 1 or "embed_tokens" in name:
            kept.append(parameter)
        elif config.optimizer == "muon" and ".layers." in name:
            hidden.append(parameter)
        else:
            decayed.append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    adam = AdamW(groups, peak, config.betas)
    return Optimizers([adam, Muon(hidden, peak, config.weight_decay, config.momentum, dtype)] if hidden else [adam])


def moments(model: nn.Module, optimizer: Optimizers) -> dict[str, Tensor]:
    """The optimizers' averages under `{average}.{parameter}`, made (as zeros) where there are none yet.

    The tensors are the optimizers' own: filling them in place restores them.
    """
    names = {parameter: name for name, parameter in model.named_parameters()}
    out: dict[str, Tensor] = {}
    for part in optimizer.parts:
        for parameter in (parameter for group in part.param_groups for parameter in group["params"]):
            averages = part.averages(parameter)
            out |= {f"{average}.{names[parameter]}": tensor for average, tensor in averages.items()}
    return out


def set_updates(optimizer: Optimizers, updates: int) -> None:
    """Sets how many updates were made, for Adam's bias correction: after a checkpoint was loaded."""
    for part in optimizer.parts:
        for state in part.state.values():
            if "step" in state:
                state["step"].fill_(updates)


def set_learning_rate(optimizer: Optimizers, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


@torch.no_grad()
def clip_gradients(model: nn.Module, most: float, alone: bool, replicas: int = 1) -> Tensor:
    """Scales all gradients so that their joint norm is at most `most`; returns the norm before, a device scalar.

    One reduction over ranks for the whole model, on local shards: `clip_grad_norm_` works on sharded tensors too, at
    the price of a collective for every parameter. All ranks take part, so that copies of the model cannot drift apart
    by a rounding; each of the `replicas` copies then counts every gradient once.
    """
    grads = [local(p.grad) for p in model.parameters() if p.grad is not None]
    squares = torch.stack(torch._foreach_norm(grads)).square().sum()  # type: ignore[arg-type]
    if not alone:
        torch.distributed.all_reduce(squares)
        squares /= replicas
    norm = squares.sqrt()
    torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm
