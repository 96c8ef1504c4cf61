"""To and from Hugging Face's `Qwen3ForCausalLM`: config, names, SafeTensors. Imports no transformers.

Parameter names are the same on both sides, so that a state dict needs no mapping; a tied head is not stored, as there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.sizes import ModelConfig

if TYPE_CHECKING:
    from torch import Tensor

    from models.decoder import Decoder

ARCHITECTURE = "Qwen3ForCausalLM"

_NAMES = {
    "vocabulary_size": "vocab_size",
    "hidden_size": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "key_value_heads": "num_key_value_heads",
    "head_size": "head_dim",
    "intermediate_size": "intermediate_size",
    "tied": "tie_word_embeddings",
    "context": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "norm_eps": "rms_norm_eps",
}


def to_config(config: ModelConfig, eos_id: int, dtype: str = "float32") -> dict[str, Any]:
    """The content of `config.json`.

    `rope_theta` stands both at the top, where vLLM and transformers 4 read it, and in `rope_parameters`, where
    transformers 5 does.
    """
    return {
        "architectures": [ARCHITECTURE],
        "model_type": "qwen3",
        **{theirs: getattr(config, ours) for ours, theirs in _NAMES.items()},
        "rope_parameters": {"rope_type": "default", "rope_theta": config.rope_theta},
        "hidden_act": "silu",
        "attention_bias": False,
        "attention_dropout": 0.0,
        "use_sliding_window": False,
        "initializer_range": 0.02,
        "use_cache": True,
        "bos_token_id": None,
        "eos_token_id": eos_id,
        "pad_token_id": eos_id,
        "dtype": dtype,
        "torch_dtype": dtype,
    }


def from_config(config: Mapping[str, Any]) -> tuple[ModelConfig, int]:
    """The shape and the EOS id that a `config.json` describes.

    Raises:
        ValueError: another architecture, or a feature that the decoder does not have.
    """
    if config.get("architectures") != [ARCHITECTURE]:
        raise ValueError(f"config.json: architectures is {config.get('architectures')}; only {ARCHITECTURE} is read")
    if config.get("attention_bias") or config.get("use_sliding_window"):
        raise ValueError("config.json: attention_bias and use_sliding_window are not supported")
    rope = config.get("rope_parameters") or {}
    if rope.get("rope_type", "default") != "default":
        raise ValueError(f"config.json: rope_type {rope['rope_type']!r} is not supported")
    values = {ours: config[theirs] for ours, theirs in _NAMES.items() if theirs in config}
    values["rope_theta"] = float(rope.get("rope_theta", config.get("rope_theta", 10_000.0)))
    return ModelConfig(**values), int(config["eos_token_id"])


def save_weights(weights: Mapping[str, Tensor], path: Path) -> None:
    """Writes tensors as SafeTensors, marked as PyTorch's, which `transformers` asks for.

    Raises:
        OSError: the disk refuses.
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path, metadata={"format": "pt"})
    except SafetensorError as error:  # no OSError, which the disk's trouble would be known by
        number = re.search(r"\(os error (\d+)\)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1])), str(path)) from error


def load_weights(path: Path) -> dict[str, Tensor]:
    """Reads a SafeTensors file whole."""
    from safetensors.torch import load_file

    return load_file(path)


def load_decoder(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> Decoder:
    """A decoder with these weights, fp32 on the host.

    Raises:
        ValueError, RuntimeError: a config or tensors of something else.
    """
    from models.decoder import Decoder

    shape, eos_id = from_config(config)
    model = Decoder(shape, eos_id)
    model.load_state_dict(dict(weights))
    return model
