"""The learning rate of a step: linear warm-up, then stable and linear decay (WSD; Hu et al. 2024, MiniCPM) or half a
cosine (Loshchilov and Hutter 2016).

A WSD run can be continued from before its decay without having decided its length in advance; a cosine cannot.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from models.sizes import ModelConfig, parameters

if TYPE_CHECKING:
    from stages.training.config import ScheduleConfig


def ladder_peak_lr(model: ModelConfig) -> float:
    """The peak learning rate of the OLMo ladder for a model's size: half of 0.0047 x (N / 108M)^(-1/3)."""
    return 0.0047 / 2 * (parameters(model) / 108e6) ** (-1 / 3)


def default_peak_lr(model: ModelConfig, continued: bool, lora: bool = False) -> float:
    """The peak learning rate where a recipe gives none.

    Args:
        continued: the model goes on from a base. It was decayed to the end of its training, and is warmed up again to
            0.6 of the peak: from 0.33 to 0.83 the loss on the new domain hardly differs, what is forgotten grows with
            it (marin-community/marin, issue 4547).
        lora: adapters are trained. Their best learning rate is about 10 times that of all weights, over models and
            tasks, and hardly depends on the rank (Schulman et al. 2025, LoRA Without Regret: language models of 1B
            parameters and more, which are 2,048 wide or wider). On narrower ones it falls with the root of the width,
            as the adapters' first updates do: at a width of 128 three times gave a lower loss than ten (3.76 and 3.98
            nats after 150 steps, rank 16, one seed).
    """
    factor = 10.0 * min(1.0, math.sqrt(model.hidden_size / 2048)) if lora else 1.0
    return (0.6 if continued else 1.0) * factor * ladder_peak_lr(model)


class LearningRateSchedule:
    """Learning rates of a run.

    Args:
        peak: learning rate at the end of the warm-up.
        steps: steps of the run.
    """

    def __init__(self, config: ScheduleConfig, peak: float, steps: int):
        self.config, self.peak, self.steps = config, peak, steps

    def lr(self, step: int) -> float:
        """The learning rate of batch `step`, 0 to steps - 1."""
        return self.peak * self.lr_multiplier(step)

    def lr_multiplier(self, step: int) -> float:
        """The share of the peak that batch `step` takes: in (0, 1], except for the last steps of a decay to 0."""
        config = self.config
        if step < config.warmup_steps:
            return (step + 1) / (config.warmup_steps + 1)
        low = config.min_lr_ratio
        if config.kind == "cosine":
            done = (step - config.warmup_steps) / (self.steps - config.warmup_steps)
            return low + (1 - low) * (1 + math.cos(math.pi * done)) / 2
        decay_steps = round(config.decay_ratio * self.steps)
        left = self.steps - step
        if left > decay_steps:
            return 1.0
        return low + (1 - low) * left / (decay_steps + 1)
