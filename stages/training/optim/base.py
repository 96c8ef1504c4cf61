"""What the optimizers here share: they are `torch.optim.Optimizer`s that do not load PyTorch's compiler."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class OptimizerBase(torch.optim.Optimizer, ABC):
    """A `torch.optim.Optimizer`, so that hooks, `state_dict` and other people's tools work.

    PyTorch wraps two methods that every run calls so that its compiler skips them, and the wrapper imports the
    compiler (`torch._dynamo`, and SymPy with it) at the first call: as long again as two thirds of PyTorch itself. Here
    the wrapped functions are called directly, so that a process which compiles nothing starts without it; compiled
    regions are the model's layers only.
    """

    measure_next_update = False
    """Whether the next step keeps what `update_squares` needs."""

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        torch.optim.Optimizer.add_param_group.__wrapped__(self, param_group)  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        torch.optim.Optimizer.zero_grad.__wrapped__(self, set_to_none)  # type: ignore[attr-defined]

    @abstractmethod
    def averages(self, parameter: nn.Parameter) -> dict[str, Tensor]:
        """A parameter's averages by name, created (as zeros) where there are none yet."""

    @abstractmethod
    def update_squares(self) -> Tensor:
        """Sum of the squares of what the last update added to this rank's weights: a scalar on the device."""
