"""The one forwarder: follows a stage's event log and feeds the people who watch (terminal, Prefect, MLflow).

Stages only append to their log; whatever watches may be slow, away or restarted without the stage noticing. Each sink
that must not see an event twice (MLflow) keeps its own offset in the store.
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
PATIENCE_SECONDS = 10.0
"""How long the end of a stage waits for sinks whose server is away."""
TROUBLE = ("warning", "worker_lost", "restart")
"""Events that people are told at once."""
log = logging.getLogger(__name__)


class Sink(Protocol):
    """Something that is told about events."""

    def start(self, events: EventLog) -> int:
        """Gets ready for this log and returns the offset to read from."""
        ...

    def take(self, events: list[Event], offset: int) -> None:
        """Takes new events; `offset` is where the next ones begin. May raise: the same events are offered again."""
        ...

    def close(self) -> None: ...


class Forwarder:
    """`with Forwarder(store, folder, sinks):` forwards what a stage appends until the block ends, then the rest.

    Each sink has a thread of its own: one that waits for a server which is away does not hold up the others.
    """

    def __init__(self, store: Store, folder: str, sinks: Sequence[Sink], say: Callable[[str], None] = log.warning):
        self._followers = [_Follower(EventLog(store, folder), sink, say) for sink in sinks]

    def __enter__(self) -> Forwarder:
        for follower in self._followers:
            follower.begin()
            follower.thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        for follower in self._followers:
            follower.stop.set()
        for follower in self._followers:
            follower.thread.join(max(0.0, deadline - time.monotonic()))
            follower.sink.close()

    @property
    def behind(self) -> list[Sink]:
        """Sinks that have not got everything; `catch_up` gives them the rest later."""
        return [follower.sink for follower in self._followers if follower.behind or follower.thread.is_alive()]


class _Follower:
    """Offers one sink what is new, until it is told to stop; then once more."""

    def __init__(self, events: EventLog, sink: Sink, say: Callable[[str], None] = log.warning):
        self.events, self.sink, self.say = events, sink, say
        self.name = type(sink).__name__.removesuffix("Sink")
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self._follow, name=f"forward-to-{self.name}", daemon=True)
        self._offset = 0
        self.behind = False

    def begin(self) -> None:
        self._offset = self.sink.start(self.events)

    def _follow(self) -> None:
        while not self.stop.wait(POLL_SECONDS):
            self.forward()
        self.forward()

    def forward(self) -> bool:
        """True when the sink has everything."""
        try:
            events, offset = self.events.read(self._offset)
            if events:
                self.sink.take(events, offset)
        except Exception as error:
            # A watcher (or the store that it reads from) that is away must not stop the work; it is offered the same
            # events at the next turn.
            if not self.behind:
                self.behind = True
                self.say(f"{self.name} is away, the work goes on and it is told later: {str(error)[:200]}")
            return False
        if self.behind:
            self.behind = False
            self.say(f"{self.name} has caught up")
        self._offset = offset
        return True


def catch_up(store: Store, folder: str, sink: Sink) -> bool:
    """Gives a sink what it missed of a stage that has ended. False: it is away still; the next run tries again."""
    follower = _Follower(EventLog(store, folder), sink)
    follower.begin()
    done = follower.forward()
    sink.close()
    return done


class FromNow:
    """Base of sinks that show what happens now: older events of an earlier attempt are not replayed."""

    def start(self, events: EventLog) -> int:
        return events.end()

    def close(self) -> None:
        """Nothing to end."""


class TerminalSink(FromNow):
    """A progress bar with ETA in a terminal, plain lines (at most one in `every` seconds) elsewhere."""

    def __init__(self, name: str, console: Console, every: float = 10.0):
        self.name, self.console, self.every = name, console, every
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

    def take(self, events: list[Event], offset: int) -> None:
        for event in events:
            self._notes.take(event)
            if event["type"] == "progress" and self._progress:
                self._progress.update(
                    self._task, completed=event["done"], total=event["total"], unit=event.get("unit", "")
                )
            elif event["type"] == PLAN:
                print_plan(self.console, event["plan"])
            elif event["type"] in TROUBLE:
                self.console.print(f"  {self.name}: {describe(event)}", markup=False)
            if not self._progress and event["type"] == "progress" and event["time"] - self._last_line >= self.every:
                self._last_line = event["time"]
                self.console.print(f"  {self.name}: {self._notes.with_progress()}", markup=False)
        if self._progress:
            self._progress.update(self._task, note=self._notes.text)

    def close(self) -> None:
        if self._progress:
            self._progress.stop()


class PrefectSink(FromNow):
    """Progress in the Prefect UI: one progress artifact a stage, and a log line for what matters."""

    def __init__(self, name: str, logger: logging.Logger | logging.LoggerAdapter):
        self.name, self.logger = name, logger
        self._progress = artifacts.Progress(name)
        self._notes = _Notes()

    def take(self, events: list[Event], offset: int) -> None:
        for event in events:
            self._notes.take(event)
        share = [100.0 * e["done"] / e["total"] for e in events if e["type"] == "progress" and e["total"]]
        if any(event["type"] == "finished" for event in events):
            share.append(100.0)
        if share:
            self._progress.update(min(100.0, share[-1]), self._notes.with_progress())
        for event in events:
            if event["type"] in (*TROUBLE, "validation", "checkpoint", "failed"):
                self.logger.info("%s: %s", self.name, describe(event) or event)


class _Notes:
    """What is known of a stage at the moment, in words."""

    def __init__(self) -> None:
        self._phrases: dict[str, str] = {}
        self._done = self._left = ""

    def take(self, event: Event) -> None:
        kind, phrase = event["type"], describe(event)
        if kind == "progress":
            self._done = f"{event['done']:,.0f} of {event['total']:,.0f} {event.get('unit', '')}".rstrip()
            left = event.get("seconds_left")
            self._left = f"{duration(left)} left" if left else ""
        if phrase:
            # Measurements stay until there are newer ones, anything else until the next phrase of any kind.
            self._phrases = {known: text for known, text in self._phrases.items() if known in ("step", "validation")}
            self._phrases[kind] = phrase

    @property
    def text(self) -> str:
        """The newest phrases."""
        return ", ".join(self._phrases[kind] for kind in sorted(self._phrases))

    def with_progress(self) -> str:
        """How far the stage is, the newest phrases, and the time left."""
        return ", ".join(part for part in (self._done, self.text, self._left) if part)


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
    """One short phrase about an event, empty for those that speak for themselves."""
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
            return f"went on from {event['checkpoint'] or 'the beginning'}"
        case "warning":
            return str(event.get("message", ""))
        case "failed":
            return str(event.get("error", ""))
        case "progress":
            return str(event.get("note", ""))
        case _:
            return ""
