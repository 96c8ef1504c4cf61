"""Rotary position embedding (Su et al. 2021) and what stretches it to longer contexts than a model was trained on.

Angles are position x frequency, and frequency i of D / 2 turns once in 2 pi theta^(2i / D) tokens. Stretching by a
factor s:

- linear (Chen et al. 2023): all frequencies divided by s.
- NTK (u/bloc97, 2023): theta is raised so that the slowest frequency is divided by s and the fastest stays; it needs no
  scaling of its own, see `ntk_theta`.
- YaRN (Peng et al. 2023): frequencies that turn often within the original context stay, those that turn less than once
  are divided by s, between them a ramp over i; and attention's temperature falls, by a factor of cosine and sine.
- llama3 (Llama 3.1): as YaRN, with its ramp over the wavelength and without the temperature.

PyTorch is imported where it computes: sizes, and so every recipe, are read without it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["linear", "yarn", "llama3"]


@dataclass(frozen=True)
class RopeScaling:
    """How frequencies are stretched. Names are those of Hugging Face's `rope_parameters`."""

    rope_type: Kind
    factor: float
    """s: how many times as long as the original the context may be."""
    original_max_position_embeddings: int | None = None
    """Tokens of the context that the model was trained on first. YaRN and llama3 need it."""
    attention_factor: float | None = None
    """YaRN: what cosine and sine are multiplied by; None: 0.1 ln s + 1, the paper's."""
    beta_fast: float = 32.0
    """YaRN: turns within the original context from which on a frequency stays."""
    beta_slow: float = 1.0
    """YaRN: turns below which it is divided by s."""
    low_freq_factor: float = 1.0
    """llama3: the original context over the wavelength, below which a frequency is divided by s."""
    high_freq_factor: float = 4.0
    """llama3: the same, above which it stays."""

    def __post_init__(self) -> None:
        if self.rope_type not in get_args(Kind):
            raise ValueError(f"rope_type {self.rope_type!r} is not supported; there are {', '.join(get_args(Kind))}")
        if not self.factor >= 1:
            raise ValueError(f"factor is {self.factor}; a context is stretched by 1 or more")
        if self.rope_type != "linear" and not self.original_max_position_embeddings:
            raise ValueError(f"{self.rope_type} needs original_max_position_embeddings, the context before it")
        if self.rope_type == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor ({self.low_freq_factor}) must be positive and less than high_freq_factor "
                f"({self.high_freq_factor})"
            )


def frequencies(head_size: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, float]:
    """Radians a position of each pair, fp32 [head_size / 2], and the factor of cosine and sine."""
    import torch

    exponent = torch.arange(0, head_size, 2, dtype=torch.float32) / head_size
    plain = 1.0 / theta**exponent
    if scaling is None:
        return plain, 1.0
    divided = plain / scaling.factor
    if scaling.rope_type == "linear":
        return divided, 1.0
    if scaling.rope_type == "yarn":
        stays = 1 - _yarn_ramp(head_size, theta, scaling)
        factor = scaling.attention_factor
        return plain * stays + divided * (1 - stays), 0.1 * math.log(scaling.factor) + 1 if factor is None else factor
    turns = float(scaling.original_max_position_embeddings or 0) * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    stays = ((turns - low) / (high - low)).clamp(0, 1)
    return plain * stays + divided * (1 - stays), 1.0


def ntk_theta(theta: float, head_size: int, factor: float) -> float:
    """The base that stretches the context by `factor` with the fastest frequency unchanged."""
    return theta * factor ** (head_size / (head_size - 2))


def _yarn_ramp(head_size: int, theta: float, scaling: RopeScaling) -> Tensor:
    """0 for the pairs whose frequency stays, 1 for those where it is divided: fp32 [head_size / 2]."""
    import torch

    original = float(scaling.original_max_position_embeddings or 0)

    def pair(turns: float) -> float:
        """The pair, as a real number, that turns so often within the original context."""
        return head_size * math.log(original / (2 * math.pi * turns)) / (2 * math.log(theta))

    low = max(math.floor(pair(scaling.beta_fast)), 0)
    high = min(math.ceil(pair(scaling.beta_slow)), head_size - 1)
    width = high - low or 0.001
    return ((torch.arange(head_size // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
