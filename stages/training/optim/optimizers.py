"""A model's optimizers with their learning rate: AdamW, and Muon beside it for the hidden matrices."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from models.lora import is_adapter
from stages.training.optim.adamw import AdamW
from stages.training.optim.base import OptimizerBase
from stages.training.optim.muon import Muon
from stages.training.optim.schedule import LearningRateSchedule
from stages.training.parallelism.sharded import local

if TYPE_CHECKING:
    from stages.training.config import OptimizerConfig


class Optimizers:
    """Several optimizers, each of some of the parameters, that step together at the learning rate of their schedule.

    Args:
        optimizers: each a `torch.optim.Optimizer`: hooks and tools that take one take each of them.
    """

    def __init__(self, optimizers: Sequence[OptimizerBase], schedule: LearningRateSchedule):
        self.optimizers, self.schedule = optimizers, schedule

    def step(self, step: int, *, measure: bool = False) -> float:
        """Updates the weights of batch `step`; returns the learning rate.

        Args:
            measure: keep what `update_squares` needs.
        """
        lr = self.schedule.lr(step)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.measure_next_update = measure
            optimizer.step()
        return lr

    def zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad()

    def update_squares(self) -> Tensor:
        """Sum of the squares of what the last step added to this rank's weights: a scalar on the device. The step must
        have been asked to `measure`."""
        return torch.stack([optimizer.update_squares() for optimizer in self.optimizers]).sum()

    def state_tensors(self, model: nn.Module) -> dict[str, Tensor]:
        """The optimizers' averages under `{average}.{parameter}`, created (as zeros) where there are none yet.

        The tensors are the optimizers' own: filling them in place restores them.
        """
        names = {parameter: name for name, parameter in model.named_parameters()}
        tensors: dict[str, Tensor] = {}
        for optimizer in self.optimizers:
            for parameter in (parameter for group in optimizer.param_groups for parameter in group["params"]):
                averages = optimizer.averages(parameter)
                tensors |= {f"{average}.{names[parameter]}": tensor for average, tensor in averages.items()}
        return tensors

    def reset(self, model: nn.Module) -> None:
        """Sets the averages and the number of updates back to the start."""
        for tensor in self.state_tensors(model).values():
            local(tensor).zero_()
        self.set_updates(0)

    def set_updates(self, updates: int) -> None:
        """Sets the number of updates so far, for Adam's bias correction: after a checkpoint was loaded."""
        for optimizer in self.optimizers:
            for state in optimizer.state.values():
                if "step" in state:
                    state["step"].fill_(updates)


def build_optimizers(
    model: nn.Module, config: OptimizerConfig, schedule: LearningRateSchedule, dtype: torch.dtype
) -> Optimizers:
    """Muon for the layers' matrices and AdamW for the rest, or AdamW for all. Norms and the embedding do not decay.
    Parameters without gradient are left out.

    Adapters are AdamW's. Muon would make all singular values of a factor's update alike, but it is the product B A that
    changes the layer, and the first gradients of A are zero, since B is. Their learning rate's rule was found with Adam
    (`default_peak_lr`), too. They do not decay: at ten times the learning rate decay would take the model back to its
    base ten times as fast.

    Args:
        dtype: number format of Muon's products.
    """
    hidden: list[nn.Parameter] = []
    decayed: list[nn.Parameter] = []
    not_decayed: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if parameter.ndim == 1 or "embed_tokens" in name or is_adapter(name):
            not_decayed.append(parameter)
        elif config.name == "muon" and ".layers." in name:
            hidden.append(parameter)
        else:
            decayed.append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": not_decayed, "weight_decay": 0.0}]
    optimizers: list[OptimizerBase] = [AdamW(groups, schedule.peak, config.betas)]
    if hidden:
        optimizers.append(Muon(hidden, schedule.peak, config.weight_decay, config.momentum, dtype))
    return Optimizers(optimizers, schedule)


@torch.no_grad()
def clip_gradients(model: nn.Module, max_norm: float, alone: bool, replicas: int = 1) -> Tensor:
    """Scales all gradients so that their joint norm is at most `max_norm`; returns the norm before, a device scalar.

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
    torch._foreach_mul_(grads, (max_norm / (norm + 1e-6)).clamp(max=1.0))
    return norm


@torch.no_grad()
def weight_squares(model: nn.Module) -> Tensor:
    """Sum of the squares of this rank's weights that are trained: a scalar on the device."""
    weights = [local(p.detach()) for p in model.parameters() if p.requires_grad]
    return torch.stack([*torch._foreach_norm(weights)]).square().sum()
