"""Where a run's time goes: seconds by phase, on the host's clock or on the device's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch

ON_DEVICE = ("forward", "backward", "optimizer")
"""Phases that are the device's work. A GPU runs them asynchronously to the host: there they are measured by
events in the device's stream."""
PHASES = ("data", *ON_DEVICE, "checkpoint", "validation")
"""Waiting for a batch; forward and backward passes; clipping and the optimizer's step; what the training waits for a
checkpoint (it is written beside it); runs over held-out rows."""


class _Span(NamedTuple):
    phase: str
    begin: Any
    end: Any


class PhaseClock:
    """Takes the time of phases. Nothing waits for the device: a step's times are read after it has been passed."""

    def __init__(self, device: torch.device):
        self._device_now: Callable[[], Any] = _event if device.type == "cuda" else time.perf_counter
        self._spans: list[_Span] = []
        self.start()

    def start(self) -> None:
        """Discards what was measured so far: the training starts, or continues after something that does not count."""
        self._spans.clear()
        self._passed = self._device_now()

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """What happens inside belongs to a phase."""
        now = self._device_now if name in ON_DEVICE else time.perf_counter
        begin = now()
        yield
        self._spans.append(_Span(name, begin, now()))

    def cut(self) -> Sequence[_Span]:
        """What was taken since the last cut: an update's own phases, and before them its batch and whatever fell
        between it and the update before. `seconds` reads it."""
        spans, self._spans = self._spans, []
        work = [span for span in spans if span.phase in ON_DEVICE]
        if work:
            spans.append(_Span("stall", self._passed, work[0].begin))
            self._passed = work[-1].end
        return spans

    @staticmethod
    def seconds(spans: Sequence[_Span]) -> dict[str, float]:
        """Seconds by phase, 0 where there were none, and `stall`: from the end of the update before to the begin of
        this one, validation apart, when the device had nothing to do for the training (it waited for data, for a
        checkpoint, for other ranks).

        A GPU must have passed the update; reading a result of it is enough.
        """
        found = dict.fromkeys((*PHASES, "stall"), 0.0)
        for span in spans:
            found[span.phase] += _between(span.begin, span.end)
        found["stall"] = max(0.0, found["stall"] - found["validation"])
        return found


def _event() -> torch.cuda.Event:
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _between(begin: Any, end: Any) -> float:
    return end - begin if isinstance(begin, float) else begin.elapsed_time(end) / 1000
