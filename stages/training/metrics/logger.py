"""A run's metrics: an entry of its history for each update, and events for those who watch it."""

from __future__ import annotations

import resource
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.lora import Lora, training_flops_with_adapters
from models.sizes import ModelConfig, training_flops
from stages.store.events import Emit
from stages.tokens.tokens_by_source import tokens_by_source
from stages.training.loop.data import TrainingData
from stages.training.loop.updater import Computed, Norms
from stages.training.loop.validation import BitsPerByte
from stages.training.metrics.history import History
from stages.training.metrics.phase_clock import PhaseClock

EVENT_SECONDS = 0.5
"""Minimum time between two step events; every step is in the history."""

NORM_STEPS = 20
"""Minimum steps between two whose update's norm is measured: it costs up to a tenth of a step."""

RECENT_STEPS = 50
"""Steps whose time gives the estimate for the rest of a run."""


@dataclass
class StepMetrics:
    """A step whose loss the ranks have not added up yet."""

    step: int
    learning_rate: float
    sequences: int
    length: int
    """Tokens a sequence."""
    valid: float
    """Targets that count, over all ranks."""
    computed: Computed
    norms: Norms | None
    began: float
    spans: Sequence[Any]
    """What `PhaseClock.cut` gave after it."""

    @property
    def tokens(self) -> int:
        return self.sequences * self.length


class MetricsLogger:
    """Keeps a run's history and emits its events.

    Args:
        steps: steps of the run.
        flops_per_second: of all ranks' devices: what utilization is a share of.
        emit: appends an event, on the first rank; does nothing on others.
        lora: the adapters that are trained; None: all weights are.
    """

    def __init__(
        self,
        steps: int,
        shape: ModelConfig,
        data: TrainingData,
        flops_per_second: float,
        emit: Emit,
        first: bool,
        lora: Lora | None = None,
    ):
        self.steps, self.shape, self.data, self.flops_per_second = steps, shape, data, flops_per_second
        self.emit, self.first, self.lora = emit, first, lora
        self.history = History()
        self._emitted = 0.0
        self._measured = -NORM_STEPS
        self._last_update = time.perf_counter()

    def start(self) -> None:
        """Counts time from now: the training begins, or continues."""
        self._last_update = time.perf_counter()

    def should_measure_norms(self, step: int) -> bool:
        """Whether the norms of this step's update are measured: now and then, by the first rank's clock, so that ranks
        must agree on its answer. Ask once a step; such a step is always emitted."""
        wanted = self.first and self._due() and step >= self._measured + NORM_STEPS
        if wanted:
            self._measured = step
        return wanted

    def log_step(self, step: StepMetrics, loss: float, skipped: Iterable[tuple[int, int]]) -> None:
        """Appends a step to the history, and emits it if it is time to.

        Args:
            loss: mean over the global batch's targets, in nats.
            skipped: ranges [first, end) of batches that the run has skipped.
        """
        now = time.perf_counter()
        phases = PhaseClock.seconds(step.spans)
        passed, self._last_update = now - self._last_update, now
        rate = step.tokens / (now - step.began)
        entry: dict[str, Any] = {
            "step": step.step,
            "loss": loss,
            "learning_rate": step.learning_rate,
            "tokens_per_second": rate,
            "grad_norm": float(step.computed.grad_norm),
            "tokens": step.tokens + int(self.history.last("tokens")),
            "seconds": round(self.history.last("seconds") + passed - phases["validation"], 6),
            "model_flops_utilization": rate * self._flops_per_token(step.length) / self.flops_per_second,
            "memory_bytes": peak_memory(step.computed.nats.device),
        }
        entry |= {f"{name}_seconds": round(seconds, 6) for name, seconds in phases.items()}
        if step.norms:
            entry |= {"update_norm": float(step.norms.update), "weight_norm": float(step.norms.weights)}
        self.history.append(entry)
        done = step.step + 1
        if self._due() or step.norms or done == self.steps:
            self._emitted = time.monotonic()
            if self.first:
                by_source = tokens_by_source(
                    self.data.order, self.data.reader.sequence_length, step.sequences, done, skipped
                )
                left = self._seconds_left(done)
                self.emit("step", steps=self.steps, **entry, tokens_by_source=by_source)
                self.emit("progress", done=done, total=self.steps, unit="steps", seconds_left=left)

    def log_validation(self, step: int, found: BitsPerByte) -> None:
        """Appends to the history, and emits, what a validation before batch `step` found."""
        entry: dict[str, Any] = {
            "step": step,
            "tokens": int(self.history.last("tokens")),
            "seconds": self.history.last("seconds"),
            "bits_per_byte": found.total,
            "by_source": found.by_source,
        }
        self.history.validations.append(entry)
        self.emit("validation", **entry)

    def summary(self) -> dict[str, float]:
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

    def _flops_per_token(self, length: int) -> float:
        if self.lora is None:
            return training_flops(self.shape, length)
        return training_flops_with_adapters(self.shape, length, self.lora)

    def _due(self) -> bool:
        return time.monotonic() - self._emitted >= EVENT_SECONDS

    def _seconds_left(self, done: int) -> float:
        seconds = self.history.column("seconds")[-RECENT_STEPS - 1 :]
        seconds_per_step = (seconds[-1] - seconds[0]) / (len(seconds) - 1) if len(seconds) > 1 else seconds[0]
        return round(float(seconds_per_step) * (self.steps - done), 1)


def peak_memory(device: torch.device) -> int:
    """Bytes: the most that this process has held so far, of a GPU's memory or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
