"""The weights that a finished run leaves."""

from __future__ import annotations

import torch
from torch import nn

from stages.training.sharded import whole


def whole_weights(model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """Every parameter gathered, fp32 on the host, where `keep` is set (rank 0). Every rank must call it."""
    gathered = {}
    for name, parameter in model.named_parameters():
        tensor = whole(parameter.detach())
        if keep:
            gathered[name] = tensor.to("cpu", torch.float32)
    return gathered
