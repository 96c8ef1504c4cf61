"""Named shapes of the models that Headwater trains; their parameters and operations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from models.rope import RopeScaling

Architecture = Literal["Qwen3ForCausalLM", "Qwen2ForCausalLM", "LlamaForCausalLM", "MistralForCausalLM"]
"""Hugging Face's classes that the decoder computes."""


@dataclass(frozen=True)
class ModelConfig:
    """Shape of a decoder. `models/huggingface.py` maps the names to Hugging Face's."""

    vocabulary_size: int
    """Rows of embedding and head; `config_for_size` pads them for efficient products."""
    hidden_size: int
    """Width d of the residual stream."""
    layers: int
    heads: int
    """Query heads."""
    key_value_heads: int
    """Key and value heads; each is shared by `heads / key_value_heads` query heads (grouped-query attention)."""
    head_size: int
    intermediate_size: int
    """Width of the gated feed-forward layer."""
    tied: bool = False
    """The head is the embedding's transpose. Used below 350M, where a head would be most of the model."""
    context: int = 2048
    """Maximum sequence length in training; written as the model's maximum context."""
    rope_theta: float = 10_000.0
    """Base of the rotary position frequencies."""
    rope_scaling: RopeScaling | None = None
    """Scaling of those frequencies for a longer context."""
    architecture: Architecture = "Qwen3ForCausalLM"
    """Models from scratch are Qwen3, whose training is the most stable."""
    norm_eps: float = 1e-6

    @property
    def qk_norm(self) -> bool:
        """Queries and keys are normed."""
        return self.architecture == "Qwen3ForCausalLM"

    @property
    def qkv_bias(self) -> bool:
        """The projections to queries, keys and values have biases."""
        return self.architecture == "Qwen2ForCausalLM"

    def __post_init__(self) -> None:
        if self.heads % self.key_value_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of key_value_heads ({self.key_value_heads})")
        if self.head_size % 2:
            raise ValueError(f"head_size ({self.head_size}) must be even: rotary embedding rotates pairs")


@dataclass(frozen=True)
class _Shape:
    hidden_size: int
    layers: int
    heads: int
    key_value_heads: int
    head_size: int
    intermediate_size: int
    tied: bool = False
    rope_theta: float = 10_000.0


SIZES: dict[str, _Shape] = {
    "1m": _Shape(128, 2, 2, 1, 64, 384, tied=True),
    "nano": _Shape(256, 4, 4, 2, 64, 704, tied=True),
    "7m": _Shape(256, 7, 4, 2, 64, 704, tied=True),
    "11m": _Shape(256, 9, 4, 2, 64, 704, tied=True),
    "30m": _Shape(512, 7, 8, 4, 64, 1408, tied=True),
    "125m": _Shape(576, 30, 9, 3, 64, 1536, tied=True),
    "350m": _Shape(960, 32, 15, 5, 64, 2560),
    "760m": _Shape(1536, 24, 12, 4, 128, 4608),
    "1.3b": _Shape(2048, 24, 16, 8, 128, 6144, rope_theta=500_000.0),
    "2.7b": _Shape(2560, 32, 20, 4, 128, 8192, rope_theta=500_000.0),
    "7b": _Shape(4096, 36, 32, 8, 128, 12288, rope_theta=500_000.0),
    "13b": _Shape(5120, 40, 40, 8, 128, 17408, rope_theta=500_000.0),
    "30b": _Shape(5120, 64, 64, 8, 128, 25600, rope_theta=500_000.0),
    "70b": _Shape(8192, 80, 64, 8, 128, 28672, rope_theta=500_000.0),
}
"""Named sizes, from tests (1m) and the sample (nano) to the largest that FSDP alone can train. Names are parameters
with the usual vocabulary: 4,096 tokens at nano, 8,192 at 7m, 16,384 at 11m and 30m, 32,000 from 125m on. 125m and 350m
have SmolLM's shapes, 2.7b BioMedLM's depth and width, the largest follow Qwen3 and Llama 3."""

VOCABULARY_MULTIPLE = 128
"""Rows of embedding and head are a multiple of this on every machine, since results must not depend on the machine.
GPUs need it: up to 4 points of MFU for MPT (MosaicML's LLM Foundry). CPUs need a multiple of 64."""


def config_for_size(name: str, vocabulary_size: int, context: int) -> ModelConfig:
    """The architecture of a named size, with padded vocabulary.

    Args:
        context: maximum sequence length in tokens.


    Raises:
        ValueError: no such size.
    """
    if name not in SIZES:
        raise ValueError(f"unknown model size {name!r}; use one of {', '.join(SIZES)}")
    padded = -(-vocabulary_size // VOCABULARY_MULTIPLE) * VOCABULARY_MULTIPLE
    return ModelConfig(vocabulary_size=padded, context=context, **vars(SIZES[name]))


def parameters(config: ModelConfig) -> int:
    """Number of parameters; a tied head counts once."""
    tables = (1 if config.tied else 2) * config.vocabulary_size * config.hidden_size
    return tables + config.layers * layer_parameters(config) + config.hidden_size


def layer_parameters(config: ModelConfig) -> int:
    """Number of parameters of one layer."""
    head_norms = 2 * config.head_size if config.qk_norm else 0
    biases = (config.heads + 2 * config.key_value_heads) * config.head_size if config.qkv_bias else 0
    return _layer_matrices(config) + 2 * config.hidden_size + head_norms + biases


def training_flops(config: ModelConfig, sequence_length: int) -> float:
    """Floating-point operations per token in training, forward and backward.

    Six per weight of a matrix product (the head included, tied or not, the embedding's look-up not) and 12 L h T for
    attention, halved because half of it is masked: the convention of PaLM, appendix B, for causal attention.
    """
    matrices = config.layers * _layer_matrices(config) + config.vocabulary_size * config.hidden_size
    return 6 * matrices + 6 * config.layers * config.heads * config.head_size * sequence_length


def _layer_matrices(config: ModelConfig) -> int:
    attention = config.hidden_size * config.head_size * 2 * (config.heads + config.key_value_heads)
    return attention + 3 * config.hidden_size * config.intermediate_size
