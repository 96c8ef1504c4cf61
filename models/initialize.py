"""Initial values of a decoder's parameters, the same for every number of ranks."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from models.lora import A, B

STD = 0.02
ZERO = ("o_proj.weight", "down_proj.weight", ".bias", B)
"""Parameters that start at zero, so that each block starts as the identity on the residual stream, and an adapted layer
as it is without its adapter."""


def initial_value(name: str, shape: torch.Size, seed: int) -> Tensor:
    """The full fp32 value of one parameter, from its own random generator: it depends on seed and name only."""
    if name.endswith("norm.weight"):
        return torch.ones(shape)
    if name.endswith(ZERO):
        return torch.zeros(shape)
    key = hashlib.blake2b(f"{seed}/{name}".encode(), digest_size=7).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(key))
    if name.endswith(A):  # peft's: Kaiming's uniform of a = sqrt(5)
        bound = shape[1] ** -0.5
        return torch.empty(shape).uniform_(-bound, bound, generator=generator)
    return torch.empty(shape).normal_(std=STD, generator=generator)
