"""Small decoders for tests, every parameter random."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import nn

from models.decoder import Decoder
from models.sizes import ModelConfig

EOS = 3


def small_shape(tied: bool, **others: Any) -> ModelConfig:
    return ModelConfig(96, 32, 2, 4, 2, 16, 48, tied=tied, context=64, rope_theta=5_000.0, **others)


def randomly(model: nn.Module) -> nn.Module:
    """With every parameter random: the usual initial values would hide a missing projection."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.2)
    return model


def small_decoder(tied: bool, **others: Any) -> Decoder:
    return cast(Decoder, randomly(Decoder(small_shape(tied, **others), EOS)))
