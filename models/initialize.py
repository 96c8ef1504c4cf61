"""Values of a new decoder's parameters, the same for every number of ranks."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor, nn

STD = 0.02
ZERO = ("o_proj.weight", "down_proj.weight")
"""Blocks begin as the identity: what they write into the residual stream starts at zero."""


def initial_value(name: str, shape: torch.Size, seed: int) -> Tensor:
    """The whole fp32 value of one parameter, from a stream of its own: it depends on seed and name only."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(ZERO):
        return torch.zeros(shape)
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key))
    return torch.empty(shape).normal_(std=STD, generator=generator)


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Sets every parameter of a decoder whose parameters are plain tensors."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_value(name, parameter.shape, seed))
