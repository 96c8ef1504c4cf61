"""The event forwarder: follows a stage's event log and feeds its sinks (terminal, Prefect, MLflow).

Stages only append to their log; a sink's server may be slow, unreachable or restarted without affecting the stage. A
sink that must not receive an event twice (MLflow) keeps its own offset in the store.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from flows import artifacts
from flows.plan_table import print_plan
from stages.store import EventLog, Store
from stages.store.events import Event
from stages.training.preflight.plan import PLAN

POLL_SECONDS = 0.5
FLUSH_SECONDS = 10.0
"""How long the end of a stage waits for sinks whose server does not answer."""
WARNINGS = ("warning", "worker_lost", "restart", "checkpoint_refused")
"""Event types that are printed at once."""
log = logging.getLogger(__name__)


class Sink(Protocol):
    """A consumer of events."""

    def start(self, events: EventLog) -> int:
        """Prepares for this log and returns the offset to read from."""
        ...

    def consume(self, events: list[Event], offset: int) -> None:
        """Processes new events; `offset` is where the next ones begin. If it raises, it gets the same events again."""
        ...

    def close(self) -> None: ...


class Forwarder:
    """`with Forwarder(store, folder, sinks):` forwards new events until the block ends, then the remaining ones.

    Each sink has its own thread: one that waits for its server does not delay the others.
    """

    def __init__(self, store: Store, folder: str, sinks: Sequence[Sink], warn: Callable[[str], None] = log.warning):
        self._followers = [_Follower(EventLog(store, folder), sink, warn) for sink in sinks]

    def __enter__(self) -> Forwarder:
        for follower in self._followers:
            follower.open()
            follower.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        deadline = time.monotonic() + FLUSH_SECONDS
        for follower in self._followers:
            follower.stop.set()
        for follower in self._followers:
            follower.thread.join(max(0.0, deadline - time.monotonic()))
            follower.sink.close()

    @property
    def lagging(self) -> list[Sink]:
        """Sinks that have not received all events; `forward_rest` delivers the rest later."""
        return [follower.sink for follower in self._followers if follower.is_lagging or follower.thread.is_alive()]


class _Follower:
    """Forwards new events to one sink until `stop` is set; then once more."""

    def __init__(self, events: EventLog, sink: Sink, warn: Callable[[str], None] = log.warning):
        self.events, self.sink, self.warn = events, sink, warn
        self.name = type(sink).__name__.removesuffix("Sink")
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, name=f"forward-to-{self.name}", daemon=True)
        self._offset = 0
        self.is_lagging = False

    def open(self) -> None:
        self._offset = self.sink.start(self.events)

    def _follow(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            self.forward()
        self.forward()

    def forward(self) -> bool:
        """True if the sink has received all events."""
        try:
            events, offset = self.events.read(self._offset)
            if events:
                self.sink.consume(events, offset)
        except Exception as error:
            # A failing sink (or store) must not stop the stage; the same events are forwarded again at the next poll.
            if not self.is_lagging:
                self.is_lagging = True
                reason = str(error)[:200]
                self.warn(f"{self.name} does not answer; the run continues, events are forwarded later: {reason}")
            return False
        if self.is_lagging:
            self.is_lagging = False
            self.warn(f"{self.name} has received all events")
        self._offset = offset
        return True


def forward_rest(store: Store, folder: str, sink: Sink) -> bool:
    """Forwards the events of a finished stage that a sink missed. False if it failed; the next run tries again."""
    follower = _Follower(EventLog(store, folder), sink)
    follower.open()
    done = follower.forward()
    sink.close()
    return done


class LiveSink:
    """Base of sinks that show current events: those of an earlier attempt are not replayed."""

    def start(self, events: EventLog) -> int:
        return events.end_offset()

    def close(self) -> None:
        """Nothing to close."""


class TerminalSink(LiveSink):
    """A progress bar with ETA in a terminal, plain lines (at most one every `interval_seconds`) elsewhere."""

    def __init__(self, name: str, console: Console, interval_seconds: float = 10.0):
        self.name, self.console, self.interval_seconds = name, console, interval_seconds
        self._last_line = 0.0
        self._notes = _Notes()
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:<12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task(name, total=None, unit="", note="")
            self._progress.start()

    def consume(self, events: list[Event], offset: int) -> None:
        for event in events:
            self._notes.update(event)
            if event["type"] == "progress" and self._progress:
                self._progress.update(
                    self._task, completed=event["done"], total=event["total"], unit=event.get("unit", "")
                )
            elif event["type"] == PLAN:
                print_plan(self.console, event["plan"])
            elif event["type"] in WARNINGS:
                self.console.print(f"  {self.name}: {describe(event)}", markup=False)
            due = event["time"] - self._last_line >= self.interval_seconds
            if not self._progress and event["type"] == "progress" and due:
                self._last_line = event["time"]
                self.console.print(f"  {self.name}: {self._notes.with_progress()}", markup=False)
        if self._progress:
            self._progress.update(self._task, note=self._notes.text)

    def close(self) -> None:
        if self._progress:
            self._progress.stop()


class PrefectSink(LiveSink):
    """Progress in the Prefect UI: one progress artifact per stage, and log lines for important events."""

    def __init__(self, name: str, logger: logging.Logger | logging.LoggerAdapter):
        self.name, self.logger = name, logger
        self._progress = artifacts.Progress(name)
        self._notes = _Notes()

    def consume(self, events: list[Event], offset: int) -> None:
        for event in events:
            self._notes.update(event)
        share = [100.0 * e["done"] / e["total"] for e in events if e["type"] == "progress" and e["total"]]
        if any(event["type"] == "finished" for event in events):
            share.append(100.0)
        if share:
            self._progress.update(min(100.0, share[-1]), self._notes.with_progress())
        for event in events:
            if event["type"] in (*WARNINGS, "validation", "checkpoint", "failed"):
                self.logger.info("%s: %s", self.name, describe(event) or event)


class _Notes:
    """A stage's current progress in words."""

    def __init__(self) -> None:
        self._phrases: dict[str, str] = {}
        self._done = self._remaining = ""

    def update(self, event: Event) -> None:
        kind, phrase = event["type"], describe(event)
        if kind == "progress":
            self._done = f"{event['done']:,.0f} of {event['total']:,.0f} {event.get('unit', '')}".rstrip()
            seconds = event.get("seconds_left")
            self._remaining = f"{duration(seconds)} left" if seconds else ""
        if phrase:
            # Measurements are kept until there are newer ones, other phrases until the next phrase of any kind.
            self._phrases = {known: text for known, text in self._phrases.items() if known in ("step", "validation")}
            self._phrases[kind] = phrase

    @property
    def text(self) -> str:
        """The newest phrases."""
        return ", ".join(self._phrases[kind] for kind in sorted(self._phrases))

    def with_progress(self) -> str:
        """Work done, the newest phrases, and the remaining time."""
        return ", ".join(part for part in (self._done, self.text, self._remaining) if part)


def duration(seconds: float) -> str:
    """`40 s`, `12 min`, `3 h 20 min`, `2 d 5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 90:
        return f"{minutes} min"
    hours = round(minutes / 60)
    return f"{minutes // 60} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def describe(event: Event) -> str:
    """One short phrase about an event; empty if there is nothing to add."""
    match event["type"]:
        case "step" if "loss" in event:
            return f"loss {event['loss']:.3f}, {event['tokens_per_second']:,.0f} tokens/s"
        case "validation":
            return f"held-out {event['bits_per_byte']:.3f} bits per byte at step {event['step']}"
        case "checkpoint":
            return f"checkpoint at step {event['step']}"
        case "worker_lost":
            return f"worker {event['rank']} was lost: {event['reason']}"
        case "restart":
            took = f" in {event['seconds']:.1f} s" if "seconds" in event else ""
            return f"restarted from {event['checkpoint'] or 'the beginning'}{took}"
        case "checkpoint_refused":
            return f"checkpoint passed over: {', '.join(event['files'][:4])} ({'; '.join(event['reasons'][:2])})"
        case "warning":
            return str(event.get("message", ""))
        case "failed":
            return str(event.get("error", ""))
        case "progress":
            return str(event.get("note", ""))
        case _:
            return ""
