"""LoRA (Hu et al. 2021): a base's weights stay as they are, and W x becomes W x + alpha / rank x B A x.

A [rank, inputs] and B [outputs, rank] are trained. B starts at zero, so that the model starts as its base. Names,
initial values and files are those of Hugging Face's `peft`. PyTorch is imported inside functions, since recipes, which
name the adapted layers, are read without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from models.sizes import ModelConfig, training_flops

if TYPE_CHECKING:
    from torch import Tensor

    from models.decoder import Decoder

TargetModule = Literal["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TARGET_MODULES: tuple[TargetModule, ...] = get_args(TargetModule)
"""A layer's matrices, each of which can have an adapter."""
A, B = ".lora_A.weight", ".lora_B.weight"
"""Ends of the names of an adapter's parameters, after the name of the layer that it belongs to."""
ADAPTER_WEIGHTS, ADAPTER_CONFIG = "adapter_model.safetensors", "adapter_config.json"
"""peft's files."""
_PEFT_PREFIX = "base_model.model."


@dataclass(frozen=True)
class Lora:
    """Which adapters a model has."""

    rank: int
    alpha: float
    target_modules: tuple[TargetModule, ...] = TARGET_MODULES

    @property
    def scaling(self) -> float:
        """Factor of B A x."""
        return self.alpha / self.rank


def is_adapter(name: str) -> bool:
    """Whether a parameter belongs to an adapter."""
    return name.endswith((A, B))


def add_adapters(model: Decoder, lora: Lora) -> None:
    """Gives a model its adapters, allocated but not initialized, in fp32.

    All other parameters get no gradient from now on, and take the model's number format, in which they are used: fp32
    is for what is updated.
    """
    model.requires_grad_(False).to(model.dtype)
    for layer in model.model.layers:
        for name in lora.target_modules:
            block = layer.mlp if hasattr(layer.mlp, name) else layer.self_attn
            getattr(block, name).add_adapter(lora.rank, lora.scaling)


def layer_adapter_parameters(config: ModelConfig, lora: Lora) -> int:
    """Number of parameters of one layer's adapters."""
    d, wide = config.hidden_size, config.intermediate_size
    queries, keys = config.heads * config.head_size, config.key_value_heads * config.head_size
    sizes: Mapping[TargetModule, int] = {
        "q_proj": d + queries,
        "k_proj": d + keys,
        "v_proj": d + keys,
        "o_proj": queries + d,
        "gate_proj": d + wide,
        "up_proj": d + wide,
        "down_proj": wide + d,
    }
    return lora.rank * sum(sizes[name] for name in lora.target_modules)


def training_flops_with_adapters(config: ModelConfig, sequence_length: int, lora: Lora) -> float:
    """Floating-point operations per token in training, by the convention of `models.sizes.training_flops`: weights that
    stay as they are have no gradient, two of their six; attention is as ever."""
    attention = 6 * config.layers * config.heads * config.head_size * sequence_length
    matrices = training_flops(config, sequence_length) - attention
    return matrices * 4 / 6 + attention + 6 * config.layers * layer_adapter_parameters(config, lora)


def merge(weight: Tensor, a: Tensor, b: Tensor, scaling: float) -> Tensor:
    """weight + scaling x b @ a in fp32: the weight of a layer that computes as weight and adapter do. One that is in
    fp32 is changed in place."""
    return weight.float().addmm_(b.float(), a.float(), alpha=scaling)


def peft_name(name: str) -> str:
    """An adapter's parameter by its name in peft's files."""
    return f"{_PEFT_PREFIX}{name}"


def peft_config(lora: Lora, base: str) -> dict[str, Any]:
    """The content of peft's `adapter_config.json`.

    Args:
        base: name or folder of the model that the adapter belongs to.
    """
    return {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": [*lora.target_modules],
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "use_rslora": False,
        "use_dora": False,
        "init_lora_weights": True,
        "inference_mode": True,
    }
