"""What a run tells of itself: an entry of its history for each update, and events for those who look on."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.sizes import ModelConfig, training_flops
from stages.store.events import Emit
from stages.tokens.tokens_by_source import tokens_by_source
from stages.training.config import TrainingConfig
from stages.training.loop.data import TrainingData
from stages.training.loop.updater import Computed, Norms
from stages.training.loop.validation import BitsPerByte
from stages.training.metrics.history import History
from stages.training.metrics.phase_clock import PhaseClock

TELL_SECONDS = 0.5
"""Least time between two step events; every step is in the history."""

NORM_STEPS = 20
"""Least steps between two whose update's norm is measured: it costs up to a tenth of a step."""

RECENT = 50
"""Steps by whose time the rest of a run is reckoned."""


@dataclass
class Step:
    """A step whose loss the ranks have not added up yet."""

    number: int
    learning_rate: float
    sequences: int
    length: int
    """Tokens a sequence."""
    valid: float
    """Targets that count, over all ranks."""
    computed: Computed
    norms: Norms | None
    began: float
    phases: Sequence[Any]
    """What `PhaseClock.cut` gave after it."""

    @property
    def tokens(self) -> int:
        return self.sequences * self.length


class Watch:
    """Keeps a run's history and tells of it.

    Args:
        flops_rate: operations a second of all ranks' devices, what utilization is a share of.
        emit: appends an event, on the first rank; does nothing on others.
    """

    def __init__(
        self, config: TrainingConfig, shape: ModelConfig, data: TrainingData, flops_rate: float, emit: Emit, first: bool
    ):
        self.config, self.shape, self.data, self.flops_rate = config, shape, data, flops_rate
        self.emit, self.first = emit, first
        self.history = History()
        self._told = 0.0
        self._measured = -NORM_STEPS
        self._mark = time.perf_counter()

    def start(self) -> None:
        """The training begins, or goes on: time is counted from here."""
        self._mark = time.perf_counter()

    def wants_norms(self, number: int) -> bool:
        """Whether the norms of this step's update are to be measured, which is then told: now and then, by the first
        rank's clock, so that ranks must agree on its answer. To be asked once a step."""
        wanted = self.first and self._due() and number >= self._measured + NORM_STEPS
        if wanted:
            self._measured = number
        return wanted

    def record(self, step: Step, loss: float, left_out: Iterable[tuple[int, int]]) -> None:
        """Keeps a step, and tells it if it is time to.

        Args:
            loss: mean over the global batch's targets, in nats.
            left_out: ranges [first, end) of batches that the run has skipped.
        """
        now = time.perf_counter()
        phases = PhaseClock.seconds(step.phases)
        passed, self._mark = now - self._mark, now
        rate = step.tokens / (now - step.began)
        entry: dict[str, Any] = {
            "step": step.number,
            "loss": loss,
            "learning_rate": step.learning_rate,
            "tokens_per_second": rate,
            "grad_norm": float(step.computed.norm),
            "tokens": step.tokens + int(self.history.last("tokens")),
            "seconds": round(self.history.last("seconds") + passed - phases["validation"], 6),
            "model_flops_utilization": rate * training_flops(self.shape, step.length) / self.flops_rate,
            "memory_bytes": peak_memory(step.computed.nats.device),
        }
        entry |= {f"{name}_seconds": round(seconds, 6) for name, seconds in phases.items()}
        if step.norms:
            entry |= {"update_norm": float(step.norms.update), "weight_norm": float(step.norms.weights)}
        self.history.append(entry)
        done = step.number + 1
        if self._due() or step.norms or done == self.config.steps:
            self._told = time.monotonic()
            if self.first:
                by_source = tokens_by_source(
                    self.data.order, self.data.reader.sequence_length, self.config.batch, done, left_out
                )
                left = self._seconds_left(done)
                self.emit("step", steps=self.config.steps, **entry, tokens_by_source=by_source)
                self.emit("progress", done=done, total=self.config.steps, unit="steps", seconds_left=left)

    def validated(self, step: int, found: BitsPerByte) -> None:
        """Keeps and tells what a validation before batch `step` found."""
        entry: dict[str, Any] = {
            "step": step,
            "tokens": int(self.history.last("tokens")),
            "seconds": self.history.last("seconds"),
            "bits_per_byte": found.total,
            "by_source": found.by_source,
        }
        self.history.validations.append(entry)
        self.emit("validation", **entry)

    def metrics(self) -> dict[str, float]:
        """Of a run so far: loss of the last ten steps, rates of the median step, what the last validation found."""
        history = self.history
        if not len(history):
            return {}
        found = {"loss": float(history.column("loss")[-10:].mean())}
        for name in ("tokens_per_second", "model_flops_utilization"):
            found[name] = float(np.median(history.column(name)))
        found["seconds"] = history.last("seconds")
        found["stall_fraction"] = float(history.column("stall_seconds").sum() / max(found["seconds"], 1e-9))
        found["memory_bytes"] = float(history.column("memory_bytes").max())
        if history.validations:
            last = history.validations[-1]
            found["bits_per_byte"] = last["bits_per_byte"]
            found |= {f"bits_per_byte/{source}": value for source, value in last["by_source"].items()}
        return found

    def _due(self) -> bool:
        return time.monotonic() - self._told >= TELL_SECONDS

    def _seconds_left(self, done: int) -> float:
        seconds = self.history.column("seconds")[-RECENT - 1 :]
        a_step = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else seconds[0]
        return round(float(a_step) * (self.config.steps - done), 1)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this process has held so far, of a GPU's memory or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
