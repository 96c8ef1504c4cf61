"""AdamW, its groups, and its state under parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stages.training.config import TrainingConfig

MOMENTS = ("exp_avg", "exp_avg_sq")


def build_optimizer(model: nn.Module, config: TrainingConfig, peak: float) -> torch.optim.AdamW:
    """Fused AdamW; matrices decay, norms and the embedding do not."""
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (decayed if parameter.ndim > 1 and "embed_tokens" not in name else kept).append(parameter)
    groups = [{"params": decayed, "weight_decay": config.weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=peak, betas=config.betas, eps=1e-8, fused=True)


def moments(model: nn.Module, optimizer: torch.optim.AdamW) -> dict[str, Tensor]:
    """Adam's averages under `{moment}.{parameter}`, made (as zeros) where there are none yet.

    The tensors are the optimizer's own: filling them in place restores it.
    """
    out = {}
    for name, parameter in model.named_parameters():
        state = optimizer.state[parameter]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
            for moment in MOMENTS:
                state[moment] = torch.zeros_like(parameter.detach(), memory_format=torch.preserve_format)
        for moment in MOMENTS:
            out[f"{moment}.{name}"] = state[moment]
    return out


def set_updates(optimizer: torch.optim.AdamW, updates: int) -> None:
    """Sets how many updates were made, for Adam's bias correction: after a checkpoint was loaded."""
    for state in optimizer.state.values():
        state["step"].fill_(updates)


def set_learning_rate(optimizer: torch.optim.AdamW, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


@torch.no_grad()
def clip_gradients(model: nn.Module, most: float, alone: bool) -> Tensor:
    """Scales all gradients so that their joint norm is at most `most`; returns the norm before, a device scalar.

    One reduction over ranks for the whole model, on local shards: `clip_grad_norm_` works on sharded tensors too, at
    the price of a collective for every parameter.
    """
    grads = [local(p.grad) for p in model.parameters() if p.grad is not None]
    squares = torch.stack(torch._foreach_norm(grads)).square().sum()  # type: ignore[arg-type]
    if not alone:
        torch.distributed.all_reduce(squares)
    norm = squares.sqrt()
    torch._foreach_mul_(grads, (most / (norm + 1e-6)).clamp(max=1.0))
    return norm


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, any other as it is."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor
