"""Rotary position embedding (Su et al. 2021) and its scaling to longer contexts than a model was trained on.

Angles are position x frequency; frequency i of D / 2 has a wavelength of 2 pi theta^(2i / D) tokens. Scaling by a
factor s:

- linear (Chen et al. 2023): all frequencies divided by s.
- NTK (u/bloc97, 2023): theta x s^(D / (D - 2)) divides the slowest frequency by s and keeps the fastest; it needs no
  entry of its own, only another `rope_theta`.
- YaRN (Peng et al. 2023): frequencies with many rotations within the original context stay, those with less than one
  are divided by s, with a ramp over i between them; and a factor of cosine and sine lowers attention's temperature.
- llama3 (Llama 3.1): as YaRN, with its ramp over the wavelength and without the temperature.

PyTorch is imported inside functions, since model sizes, and so every recipe, are read without it.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from torch import Tensor

Kind = Literal["linear", "yarn", "llama3"]


@dataclass(frozen=True)
class RopeScaling:
    """Scaling of the frequencies. Names are those of Hugging Face's `rope_parameters`."""

    rope_type: Kind
    factor: float
    """s: the new context length divided by the original one."""
    original_max_position_embeddings: int | None = None
    """Context length in tokens before scaling. Required by YaRN and llama3."""
    attention_factor: float | None = None
    """YaRN: factor of cosine and sine; None: 0.1 ln s + 1, as in the paper."""
    beta_fast: float = 32.0
    """YaRN: rotations within the original context from which on a frequency stays."""
    beta_slow: float = 1.0
    """YaRN: rotations below which it is divided by s."""
    low_freq_factor: float = 1.0
    """llama3: the original context over the wavelength, below which a frequency is divided by s."""
    high_freq_factor: float = 4.0
    """llama3: the same, above which it stays."""

    def __post_init__(self) -> None:
        if self.rope_type not in get_args(Kind):
            raise ValueError(f"rope_type {self.rope_type!r} is not supported; use one of {', '.join(get_args(Kind))}")
        if not self.factor >= 1:
            raise ValueError(f"factor is {self.factor}; must be at least 1")
        if self.rope_type != "linear" and not self.original_max_position_embeddings:
            raise ValueError(
                f"{self.rope_type} needs original_max_position_embeddings, the context length before scaling"
            )
        if self.rope_type == "llama3" and not 0 < self.low_freq_factor < self.high_freq_factor:
            raise ValueError(
                f"low_freq_factor ({self.low_freq_factor}) must be positive and less than high_freq_factor "
                f"({self.high_freq_factor})"
            )


def frequencies(head_size: int, theta: float, scaling: RopeScaling | None = None) -> tuple[Tensor, float]:
    """Radians per position of each pair, fp32 [head_size / 2], and the factor of cosine and sine."""
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
    rotations = float(scaling.original_max_position_embeddings or 0) * plain / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    stays = ((rotations - low) / (high - low)).clamp(0, 1)
    return plain * stays + divided * (1 - stays), 1.0


@functools.lru_cache(maxsize=8)
def host_tables(head_size: int, theta: float, scaling: RopeScaling | None, length: int) -> tuple[Tensor, Tensor]:
    """Cosine and sine of positions 0 to length - 1, each fp32 [length, head_size / 2], on the host.

    By numpy and not by PyTorch, whose CPU build computes them with MKL's vector functions: when two threads make the
    first call of a process at once, one of them now and then gets cosines that are wrong in the last bits (seen on a
    Sapphire Rapids in 1 of 20 processes on busy cores), and then two runs of one plan differ.
    """
    import numpy as np
    import torch

    frequency, factor = frequencies(head_size, theta, scaling)
    angles = (np.arange(length, dtype=np.float32)[:, None] * frequency.numpy()).astype(np.float64)
    cosine, sine = (torch.from_numpy((f(angles) * factor).astype(np.float32)) for f in (np.cos, np.sin))
    return cosine, sine


def _yarn_ramp(head_size: int, theta: float, scaling: RopeScaling) -> Tensor:
    """0 for the pairs whose frequency stays, 1 for those where it is divided: fp32 [head_size / 2]."""
    import torch

    original = float(scaling.original_max_position_embeddings or 0)

    def pair(rotations: float) -> float:
        """The pair, as a real number, with that many rotations within the original context."""
        return head_size * math.log(original / (2 * math.pi * rotations)) / (2 * math.log(theta))

    low = max(math.floor(pair(scaling.beta_fast)), 0)
    high = min(math.ceil(pair(scaling.beta_slow)), head_size - 1)
    width = high - low or 0.001
    return ((torch.arange(head_size // 2, dtype=torch.float32) - low) / width).clamp(0, 1)
