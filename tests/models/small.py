"""Small decoders for tests."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from models.decoder import Decoder
from models.initialize import initial_value
from models.sizes import ModelConfig

EOS = 3


def small_shape(tied: bool, **others: Any) -> ModelConfig:
    return ModelConfig(96, 32, 2, 4, 2, 16, 48, tied=tied, context=64, rope_theta=5_000.0, **others)


@torch.no_grad()
def initialize(model: nn.Module, seed: int) -> None:
    """Sets every parameter to its initial value, as training does."""
    for name, parameter in model.named_parameters():
        parameter.copy_(initial_value(name, parameter.shape, seed))


def randomize(model: nn.Module) -> nn.Module:
    """Sets every parameter to a random value: initial values of zero would hide a missing projection."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def small_decoder(tied: bool, **others: Any) -> Decoder:
    return cast(Decoder, randomize(Decoder(small_shape(tied, **others), EOS)))
