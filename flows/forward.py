"""The one forwarder: follows a stage's event log and feeds the people who watch (terminal, Prefect, MLflow).

Stages only append to their log; whatever watches may be slow, away or restarted without the stage noticing. Each sink
that must not see an event twice (MLflow) keeps its own offset in the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from stages.artifact import EventLog, Store
from stages.artifact.events import Event

POLL_SECONDS = 0.5
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
    """`with Forwarder(store, folder, sinks):` forwards what a stage appends until the block ends, then the rest."""

    def __init__(self, store: Store, folder: str, sinks: Sequence[Sink]):
        self._events = EventLog(store, folder)
        self._sinks = sinks
        self._offsets: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="event-forwarder", daemon=True)

    def __enter__(self) -> Forwarder:
        self._offsets = [sink.start(self._events) for sink in self._sinks]
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._stop.set()
        self._thread.join()
        self._forward()
        for sink in self._sinks:
            sink.close()

    def _follow(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._forward()

    def _forward(self) -> None:
        for number, sink in enumerate(self._sinks):
            events, offset = self._events.read(self._offsets[number])
            if not events:
                continue
            try:
                sink.take(events, offset)
            except Exception as error:
                # A watcher that is away must not stop the work; it is offered the same events at the next turn.
                log.warning("%s is behind: %s", type(sink).__name__, error)
                continue
            self._offsets[number] = offset


class FromNow:
    """Base of sinks that show what happens now: older events of an earlier attempt are not replayed."""

    def start(self, events: EventLog) -> int:
        return events.read()[1]

    def close(self) -> None:
        """Nothing to end."""


class TerminalSink(FromNow):
    """A progress bar with ETA in a terminal, plain lines (at most one in `every` seconds) elsewhere."""

    def __init__(self, name: str, console: Console, every: float = 10.0):
        self.name, self.console, self.every = name, console, every
        self._last_line = 0.0
        self._note = ""
        self._progress: Progress | None = None
        if console.is_terminal:
            self._progress = Progress(
                TextColumn("{task.description:<12}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[unit]}"),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[note]}"),
                console=console,
                transient=True,
            )
            self._task = self._progress.add_task(name, total=None, unit="", note="")
            self._progress.start()

    def take(self, events: list[Event], offset: int) -> None:
        for event in events:
            note = describe(event)
            if note:
                self._note = note
            if event["type"] == "progress" and self._progress:
                self._progress.update(
                    self._task, completed=event["done"], total=event["total"], unit=event.get("unit", "")
                )
            elif event["type"] in TROUBLE:
                self.console.print(f"  {self.name}: {note}", markup=False)
            if not self._progress and event["type"] == "progress" and event["time"] - self._last_line >= self.every:
                self._last_line = event["time"]
                done = f"{event['done']:,.0f} of {event['total']:,.0f} {event.get('unit', '')}"
                self.console.print(f"  {self.name}: {done} {self._note}".rstrip(), markup=False)
        if self._progress:
            self._progress.update(self._task, note=self._note)

    def close(self) -> None:
        if self._progress:
            self._progress.stop()


class PrefectSink(FromNow):
    """Progress in the Prefect UI: one progress artifact a stage, and a log line for what matters."""

    def __init__(self, name: str, logger: logging.Logger | logging.LoggerAdapter):
        from prefect.artifacts import create_progress_artifact

        self.name, self.logger = name, logger
        self._id = create_progress_artifact(0.0, key=f"{name}-progress", description=f"progress of {name}")

    def take(self, events: list[Event], offset: int) -> None:
        from prefect.artifacts import update_progress_artifact

        share = [100.0 * e["done"] / e["total"] for e in events if e["type"] == "progress" and e["total"]]
        if any(event["type"] == "finished" for event in events):
            share.append(100.0)
        if share:
            update_progress_artifact(self._id, min(100.0, share[-1]))
        for event in events:
            if event["type"] in (*TROUBLE, "validation", "checkpoint", "failed"):
                self.logger.info("%s: %s", self.name, describe(event) or event)


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
