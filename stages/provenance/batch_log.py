"""The status of each batch of a run, from its events.

A batch is *applied* (its update is in the weights), *skipped* (excluded from training) or *discarded* (trained on, but
the update was lost when the run returned to an earlier checkpoint). A discarded batch is usually trained on again: then
it is applied, and was discarded before. Steps are reported at most every half second (`training/metrics/logger.py`), so
the last half second of an attempt that was killed is not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from stages.store.events import Event
from stages.training.batch_ranges import Range, within

EVENT_TYPES = ("workers", "checkpoint", "stopped", "skipped", "restart")
"""Types of the events that a log is read from, besides `step`, of which the last one between two of these suffices."""

State = Literal["applied", "skipped", "discarded", "not reached"]


class BatchStatus(NamedTuple):
    """The status of one batch."""

    state: State
    """With respect to the current weights, or those when the run resumes."""
    discarded: int
    """How often it was trained on and the update lost."""
    ranks: int
    """Processes that shared it, or that would share it in the latest attempt; 0 before the first attempt."""


@dataclass
class BatchLog:
    """The status of all batches of a run."""

    applied: list[Range] = field(default_factory=list)
    """Ascending, without overlap; so is `skipped`."""
    skipped: list[Range] = field(default_factory=list)
    discarded: list[Range] = field(default_factory=list)
    """One entry per rollback: a batch may be in several."""
    world_sizes: list[Range] = field(default_factory=list)
    """(first batch, processes) of each attempt whose batches were not discarded."""
    next: int = 0
    """The first batch without a reported step."""

    @classmethod
    def from_events(cls, events: Iterable[Event]) -> BatchLog:
        """Reads a run's events in the order in which they were written."""
        log = cls()
        for event in events:
            log._add(event["type"], event)
        return log

    def status(self, number: int) -> BatchStatus:
        """The status of batch `number`."""
        discarded = sum(first <= number < end for first, end in self.discarded)
        ranks = next((world for first, world in reversed(self.world_sizes) if first <= number), 0)
        state: State = "discarded" if discarded else "not reached"
        if within(self.applied, number):
            state = "applied"
        elif within(self.skipped, number):
            state = "skipped"
        return BatchStatus(state, discarded, ranks)

    def _add(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "workers":
                self.world_sizes = [(first, world) for first, world in self.world_sizes if first < self.next]
                self.world_sizes.append((self.next, event["world"]))
            case "step":
                self._apply(event["step"] + 1)
            case "checkpoint" | "stopped":
                self._apply(event["step"])
            case "skipped":
                # Written before the step event of the previous batch, whose update is already applied.
                self._apply(event["first"])
                if event["end"] > self.next:
                    _extend(self.skipped, max(self.next, event["first"]), event["end"])
                    self.next = event["end"]
            case "restart":
                # From a checkpoint in memory: later than the last step that was reported before the kill.
                self._apply(event["step"])
                self._roll_back(event["step"])

    def _apply(self, end: int) -> None:
        if end > self.next:
            _extend(self.applied, self.next, end)
            self.next = end

    def _roll_back(self, to: int) -> None:
        """The run resumes from a checkpoint: later updates are lost."""
        self.discarded += [(max(first, to), end) for first, end in self.applied if end > to]
        self.applied = [(first, min(end, to)) for first, end in self.applied if first < to]
        self.skipped = [(first, min(end, to)) for first, end in self.skipped if first < to]
        self.next = to


def _extend(ranges: list[Range], first: int, end: int) -> None:
    if ranges and ranges[-1][1] == first:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((first, end))
