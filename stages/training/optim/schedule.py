"""Learning rate of a step: linear warm-up, then stable and linear decay (WSD; Hu et al. 2024, MiniCPM) or half a cosine
(Loshchilov and Hutter 2016).

With WSD a run goes on from before its decay without having decided its length in advance, which cosine does not allow.
"""

from __future__ import annotations

import math

from models.sizes import ModelConfig, parameters
from stages.training.config import TrainingConfig


def peak_learning_rate(config: TrainingConfig, model: ModelConfig) -> float:
    """The configured peak, or the OLMo ladder's for a size: half of 0.0047 x (N / 108M)^(-1/3)."""
    if config.learning_rate is not None:
        return config.learning_rate
    return 0.0047 / 2 * (parameters(model) / 108e6) ** (-1 / 3)


def factor(config: TrainingConfig, step: int) -> float:
    """What the peak is multiplied with at batch `step`, 0 to steps - 1: never 0 at the first."""
    if step < config.warmup:
        return (step + 1) / (config.warmup + 1)
    last = config.final_learning_rate
    if config.schedule == "cosine":
        done = (step - config.warmup) / (config.steps - config.warmup)
        return last + (1 - last) * (1 + math.cos(math.pi * done)) / 2
    length = round(config.decay * config.steps)
    left = config.steps - step
    if left > length:
        return 1.0
    return last + (1 - last) * left / (length + 1)
