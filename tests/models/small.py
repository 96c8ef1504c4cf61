"""Small decoders for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from models.decoder import Decoder
from models.huggingface import WEIGHTS, SpecialTokens, to_config
from models.initialize import initial_value
from models.sizes import ModelConfig

EOS = 3
TOKENS = SpecialTokens.from_scratch(EOS)


def small_shape(tied: bool, **others: Any) -> ModelConfig:
    head_size = 8 if others.get("architecture") == "Qwen2ForCausalLM" else 16  # its heads fill the width
    return ModelConfig(96, 32, 2, 4, 2, head_size, 48, tied=tied, context=64, rope_theta=5_000.0, **others)


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


def save_weights(weights: dict[str, Tensor], path: Path) -> None:
    """With the metadata that transformers asks for."""
    save_file({name: tensor.detach().contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})


def save_decoder(model: Decoder, folder: Path, tokens: SpecialTokens = TOKENS, **changes: Any) -> Path:
    """A Hugging Face folder of a decoder, without tokenizer.

    Args:
        changes: entries of `config.json`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_weights(dict(model.named_parameters()), folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(to_config(model.config, tokens) | changes))
    return folder
