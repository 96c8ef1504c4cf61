"""What became of each batch of a run, read from its events.

A batch was *applied* (its update is in the weights), *skipped* (left out by the config) or *discarded* (trained on, and
the update lost when the run went back to an earlier checkpoint). A batch that was discarded is as a rule trained on
again: then it is applied, and was discarded before. Events tell of steps at most every half second
(`watch.TELL_SECONDS`), so that of an attempt that was killed the last half second is not told, and not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from stages.store.events import Event

TOLD = ("workers", "checkpoint", "stopped", "skipped", "restart")
"""Types of the events that a log is read from, beside `step`, of which the last one between two of these will do."""

State = Literal["applied", "skipped", "discarded", "not reached"]
Range = tuple[int, int]
"""Batches [first, end)."""


class Fate(NamedTuple):
    """What became of one batch."""

    state: State
    """In the weights as they are, or will be when the run goes on."""
    discarded: int
    """Times that it was trained on and the update lost."""
    ranks: int
    """Processes that shared it, or that would if the run went on as it last did; 0 if none has begun."""


@dataclass
class BatchLog:
    """A run's batches as its events tell of them."""

    applied: list[Range] = field(default_factory=list)
    """Ascending, without overlap; so is `skipped`."""
    skipped: list[Range] = field(default_factory=list)
    discarded: list[Range] = field(default_factory=list)
    """One entry a loss: a batch may be in several."""
    worlds: list[Range] = field(default_factory=list)
    """(first batch, processes) of each attempt whose batches still count."""
    next: int = 0
    """The first batch that nothing is told of."""

    @classmethod
    def read(cls, events: Iterable[Event]) -> BatchLog:
        """From a run's events in the order in which they were written."""
        log = cls()
        for event in events:
            log._take(event["type"], event)
        return log

    def fate(self, number: int) -> Fate:
        """What became of batch `number`."""
        discarded = sum(first <= number < end for first, end in self.discarded)
        ranks = next((world for first, world in reversed(self.worlds) if first <= number), 0)
        state: State = "discarded" if discarded else "not reached"
        if _within(self.applied, number):
            state = "applied"
        elif _within(self.skipped, number):
            state = "skipped"
        return Fate(state, discarded, ranks)

    def _take(self, kind: str, event: dict[str, Any]) -> None:
        match kind:
            case "workers":
                self.worlds = [(first, world) for first, world in self.worlds if first < self.next]
                self.worlds.append((self.next, event["world"]))
            case "step":
                self._apply(event["step"] + 1)
            case "checkpoint" | "stopped":
                self._apply(event["step"])
            case "skipped":
                # Told before the loss of the batch in front of it, whose update is made.
                self._apply(event["first"])
                if event["end"] > self.next:
                    _extend(self.skipped, max(self.next, event["first"]), event["end"])
                    self.next = event["end"]
            case "restart":
                self._go_back(event["step"])

    def _apply(self, end: int) -> None:
        if end > self.next:
            _extend(self.applied, self.next, end)
            self.next = end

    def _go_back(self, to: int) -> None:
        """The run goes on from a checkpoint: later updates are lost."""
        self.discarded += [(max(first, to), end) for first, end in self.applied if end > to]
        self.applied = [(first, min(end, to)) for first, end in self.applied if first < to]
        self.skipped = [(first, min(end, to)) for first, end in self.skipped if first < to]
        self.next = to


def _within(ranges: list[Range], number: int) -> bool:
    return any(first <= number < end for first, end in ranges)


def _extend(ranges: list[Range], first: int, end: int) -> None:
    if ranges and ranges[-1][1] == first:
        ranges[-1] = (ranges[-1][0], end)
    else:
        ranges.append((first, end))
