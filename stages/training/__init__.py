"""Training: a plain PyTorch loop that runs alone, under torchrun or under Ray Train, and the stage around it."""

from stages.training.config import PhaseConfig, TrainingConfig
from stages.training.train import training

__all__ = ["PhaseConfig", "TrainingConfig", "training"]
