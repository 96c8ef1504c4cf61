"""A stage's append-only event log: progress, metrics, decisions, trouble.

Stages know no tracker: they append here, and one forwarder (in `flows/`) feeds terminal, Prefect and MLflow. On local
files the log is `events.jsonl`, one line an event, each written by one append. Object stores cannot append: there each
write is a numbered part, `events/{n:06}.jsonl`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from stages.artifact.store import Store

Event = dict[str, Any]


class Emit(Protocol):
    """What a stage calls to tell what happens."""

    def __call__(self, type: str, *, durable: bool = False, **fields: Any) -> None: ...


class EventLog:
    """Writer and reader of the events below one artifact's folder."""

    def __init__(self, store: Store, folder: str, clock: Callable[[], float] = time.time):
        self.store, self.folder, self.clock = store, folder, clock
        self._name = f"{folder}/events.jsonl"
        self._next_part: int | None = None

    def emit(self, type: str, *, durable: bool = False, **fields: Any) -> None:
        """Appends one event. `durable` returns only when it is on disk: for decisions that a restart must find."""
        line = json.dumps({"time": round(self.clock(), 3), "type": type, **fields}, ensure_ascii=False, allow_nan=False)
        data = line.encode() + b"\n"
        if self.store.is_local:
            self.store.append(self._name, data, durable=durable)
            return
        if self._next_part is None:
            self._next_part = len(self.store.list(f"{self.folder}/events"))
        while not self.store.create(f"{self.folder}/events/{self._next_part:06}.jsonl", data):
            self._next_part += 1
        self._next_part += 1

    def progress(self, done: float, total: float, unit: str = "", **fields: Any) -> None:
        """Tells how far the stage is: `done` of `total` units."""
        self.emit("progress", done=done, total=total, unit=unit, **fields)

    def read(self, offset: int = 0) -> tuple[list[Event], int]:
        """Events from `offset` (bytes of the file; parts on an object store) and the offset to go on from.

        A last line that is not finished yet is left for the next call.
        """
        if not self.store.is_local:
            names = self.store.list(f"{self.folder}/events")[offset:]
            return [event for name in names for event in _parse(self.store.read(name))], offset + len(names)
        path = self.store.local_path(self._name)
        if not path.exists():
            return [], offset
        with path.open("rb") as handle:
            handle.seek(offset)
            data = handle.read()
        whole = data[: data.rfind(b"\n") + 1]
        return list(_parse(whole)), offset + len(whole)


def _parse(data: bytes) -> Iterator[Event]:
    for line in data.splitlines():
        yield json.loads(line)
