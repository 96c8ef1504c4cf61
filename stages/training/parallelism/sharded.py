"""Tensors that may be sharded over ranks, and parameters' places in them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def local(tensor: Tensor) -> Tensor:
    """This rank's part of a sharded tensor, any other as it is."""
    to_local = getattr(tensor, "to_local", None)
    return to_local() if to_local is not None else tensor


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor gathered (every rank must call it), any other as it is."""
    full = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor


def whole_weights(model: nn.Module, keep: bool) -> dict[str, torch.Tensor]:
    """Every parameter gathered, fp32 on the host, where `keep` is set (rank 0). Every rank must call it."""
    gathered = {}
    for name, parameter in model.named_parameters():
        tensor = whole(parameter.detach())
        if keep:
            gathered[name] = tensor.to("cpu", torch.float32)
    return gathered
