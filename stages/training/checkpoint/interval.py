"""When checkpoints are due: derived from what one costs and how often something fails, or every so many steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median_low
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stages.training.config import CheckpointConfig

CLUSTER_MTBF_HOURS, CLUSTER_DEVICES = 7.9, 1024
"""Mean time between failures of 1,024 devices: Kokolis et al. 2024 (arXiv 2410.21680), of Meta's research clusters."""
MEMORY_SHARE = 0.005
"""Share of the training's time that checkpoints in memory may cost."""
_MOST_SECONDS = 1800.0
"""A small cluster fails so rarely that the formula would wait for hours, with everything on one machine."""
_MEASURED = 5
"""Checkpoints whose median cost counts: on a busy machine one may take ten times as long as the next."""
_LEAST_SECONDS, _LEAST_MEMORY_SECONDS = 60.0, 10.0
"""Between two checkpoints, however cheap they are."""


def mean_seconds_between_failures(devices: int, hours: float | None) -> float:
    """Mean time between failures of a run.

    Args:
        devices: devices that it needs.
        hours: as the recipe says; None: by the published figure, which falls with the number of devices.
    """
    return 3600 * (hours if hours is not None else CLUSTER_MTBF_HOURS * CLUSTER_DEVICES / devices)


def best_interval(cost_seconds: float, seconds_between_failures: float) -> float:
    """Seconds between checkpoints at which saving and work lost together cost least: Young 1974, sqrt(2 C M)."""
    return math.sqrt(2 * cost_seconds * seconds_between_failures)


@dataclass
class Timetable:
    """Decides on rank 0 which checkpoints are due. All ranks then agree on what it says.

    Args:
        estimate: seconds that the first checkpoint will cost the training, by the size of the state.
        in_memory: whether there are checkpoints in memory.
    """

    config: CheckpointConfig
    devices: int
    estimate: float
    in_memory: bool = True
    clock: Callable[[], float] = time.monotonic
    _costs: dict[str, list[float]] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.start()

    def start(self) -> None:
        """The training begins now."""
        self._since = dict.fromkeys(("durable", "memory"), self.clock())

    def durable_is_due(self, step: int) -> bool:
        """Whether a checkpoint on disk is due before `step`."""
        if isinstance(self.config.every_steps, int):
            return step % self.config.every_steps == 0
        return self.clock() - self._since["durable"] >= self.durable_seconds

    def memory_is_due(self, step: int) -> bool:
        """Whether one in memory is due before `step`."""
        if not self.in_memory:
            return False
        if isinstance(self.config.memory_every_steps, int):
            return self.config.memory_every_steps > 0 and step % self.config.memory_every_steps == 0
        return self.clock() - self._since["memory"] >= self.memory_seconds

    @property
    def durable_seconds(self) -> float:
        """The derived interval between checkpoints on disk."""
        between = mean_seconds_between_failures(self.devices, self.config.mean_hours_between_failures)
        return min(_MOST_SECONDS, max(_LEAST_SECONDS, best_interval(self._cost("durable"), between)))

    @property
    def memory_seconds(self) -> float:
        """The derived interval between checkpoints in memory."""
        return max(_LEAST_MEMORY_SECONDS, self._cost("memory") / MEMORY_SHARE)

    def _cost(self, kind: str) -> float:
        return median_low(self._costs.get(kind, [self.estimate]))

    def saved(self, kind: str) -> None:
        """A checkpoint was begun: one on disk is one in memory as well."""
        for name in ("durable", "memory") if kind == "durable" else ("memory",):
            self._since[name] = self.clock()

    def measured(self, kind: str, seconds: float) -> None:
        """What one cost the training."""
        self._costs[kind] = [*self._costs.get(kind, []), seconds][-_MEASURED:]
