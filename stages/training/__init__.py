"""Training: a plain PyTorch loop that runs alone, under torchrun or under Ray Train, and the stage around it.

The stage is imported when it is asked for: optimizer, step and sharding need PyTorch and nothing else.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stages.training.config import PhaseConfig, TrainingConfig
    from stages.training.stage import training

__all__ = ["PhaseConfig", "TrainingConfig", "training"]

_HOMES = {
    "PhaseConfig": "stages.training.config",
    "TrainingConfig": "stages.training.config",
    "training": "stages.training.stage",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
