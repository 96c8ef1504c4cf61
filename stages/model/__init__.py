"""The model stage: a stock Hugging Face folder from a training run."""

from stages.model.build import ModelConfig, model

__all__ = ["ModelConfig", "model"]
