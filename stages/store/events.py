"""A stage's append-only event log: progress, metrics, decisions, errors.

Stages do not know any tracker: they append here, and one forwarder (in `flows/`) feeds terminal, Prefect and MLflow.
On local files the log is `events.jsonl`, one line per event, each written by one append. Object stores cannot append:
there each write is a numbered part, `events/{n:06}.jsonl`.
"""

from __future__ import annotations

import atexit
import json
import logging
import threading
import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, Protocol

from stages.store.errors import StoreError
from stages.store.store import Store

log = logging.getLogger(__name__)
Event = dict[str, Any]
_TYPE = b'"type": "'
_MOST_KEPT = 20_000
"""Events that are kept while a full disk takes none; the oldest go first."""


class Emit(Protocol):
    """The function that a stage calls to record an event."""

    def __call__(self, type: str, *, durable: bool = False, **fields: Any) -> None: ...


class EventLog:
    """Writer and reader of the events below one artifact's folder.

    On an object store events that are not `durable` are buffered, so that a run does not write an object per step: for
    one second at first, for a hundredth of the run's time later, never for more than 15 s.

    Args:
        patient: events that are not durable stay buffered while a full disk takes none, and are written with a later
            one: for work that must not end because of it. An object store that is away is always waited for.
    """

    def __init__(self, store: Store, folder: str, clock: Callable[[], float] = time.time, *, patient: bool = False):
        self.store, self.folder, self.clock, self.patient = store, folder, clock, patient
        self._name = f"{folder}/events.jsonl"
        self._parts = f"{folder}/events"
        self._next_part: int | None = None
        self._buffer: list[bytes] = []
        self._lock = threading.Lock()
        """For the buffer; held for moments only, so that `emit` never waits for an object store."""
        self._writing = threading.Lock()
        self._began = time.monotonic()
        self._writer: threading.Thread | None = None

    def emit(self, type: str, *, durable: bool = False, **fields: Any) -> None:
        """Appends one event; with `durable`, returns only when it is on disk: for decisions that a restart reads."""
        line = json.dumps({"time": round(self.clock(), 3), "type": type, **fields}, ensure_ascii=False, allow_nan=False)
        data = line.encode() + b"\n"
        if self.store.is_local:
            self._append(data, durable)
            return
        with self._lock:
            self._buffer.append(data)
            if not durable:
                self._schedule_flush()
                return
        self.flush()

    def _append(self, data: bytes, durable: bool) -> None:
        """On local files: writes an event, and before it those that a full disk has not taken."""
        with self._lock:
            try:
                self.store.append(self._name, b"".join(self._buffer) + data, durable=durable)
                self._buffer.clear()
            except StoreError as error:
                if durable or not self.patient:
                    raise
                if not self._buffer:  # said once, until there is room again
                    log.warning("events cannot be written, and are kept: %s", error)
                self._buffer.append(data)
                del self._buffer[:-_MOST_KEPT]

    def flush(self) -> None:
        """Writes the buffered events; returns when they are in the store."""
        if self.store.is_local:
            return
        with self._writing:
            with self._lock:
                pending = list(self._buffer)
            if not pending:
                return
            if self._next_part is None:
                self._next_part = len(self.store.list(self._parts))
            while not self.store.create(self._part(self._next_part), b"".join(pending)):
                self._next_part += 1
            self._next_part += 1
            with self._lock:
                del self._buffer[: len(pending)]

    def progress(self, done: float, total: float, unit: str = "", **fields: Any) -> None:
        """Records the stage's progress: `done` of `total` units."""
        self.emit("progress", done=done, total=total, unit=unit, **fields)

    def read(
        self, offset: int = 0, only: Collection[str] = (), newest: Collection[str] = ()
    ) -> tuple[list[Event], int]:
        """Events from `offset` (bytes of the file; parts on an object store) and the offset of the next call.

        An incomplete last line is left for the next call.

        Args:
            only: event types to return; empty: all.
            newest: event types of which only the last before each event of a type in `only` is returned. A long run's
                log is nearly all steps, and parsing their JSON takes most of the time.
        """
        if not self.store.is_local:
            data, offset = self._read_parts(offset)
            return list(_parse(data, only, newest)), offset
        path = self.store.local_path(self._name)
        if not path.exists():
            return [], offset
        with path.open("rb") as handle:
            handle.seek(offset)
            data = handle.read()
        whole = data[: data.rfind(b"\n") + 1]
        return list(_parse(whole, only, newest)), offset + len(whole)

    def end_offset(self) -> int:
        """The offset behind the last event that is stored now."""
        if not self.store.is_local:
            return len(self.store.list(self._parts))
        return self.store.size(self._name) or 0

    def _part(self, number: int) -> str:
        return f"{self._parts}/{number:06}.jsonl"

    def _read_parts(self, offset: int) -> tuple[bytes, int]:
        """Parts are numbered without gaps: the next one is read by name, since listing a long run's parts is slow."""
        if offset == 0:
            contents = self.store.read_all([self._part(n) for n in range(len(self.store.list(self._parts)))])
        else:
            contents = []
        while True:
            try:
                contents.append(self.store.read(self._part(offset + len(contents))))
            except FileNotFoundError:
                return b"".join(contents), offset + len(contents)

    def _schedule_flush(self) -> None:
        """Flushes soon, in a background thread; at the latest at the end of the process."""
        if self._writer is None:
            atexit.register(self._flush_at_exit)
            self._writer = threading.Thread(target=self._flush_until_empty, name="event-writer", daemon=True)
            self._writer.start()

    def _flush_at_exit(self) -> None:
        try:
            self.flush()
        except StoreError as error:
            log.warning("the last events could not be written: %s", error)

    def _flush_until_empty(self) -> None:
        while True:
            time.sleep(min(15.0, max(1.0, 0.01 * (time.monotonic() - self._began))))
            try:
                self.flush()
            except StoreError as error:
                # They stay buffered and are tried again; a durable event, or the end of the stage, raises the error.
                log.warning("events could not be written, retrying: %s", error)
            with self._lock:
                if not self._buffer:
                    self._writer = None
                    atexit.unregister(self._flush_at_exit)
                    return


def _parse(data: bytes, only: Collection[str], newest: Collection[str]) -> Iterator[Event]:
    held = b""
    for line in data.splitlines():
        if only:
            kind = _kind(line)
            if kind in newest:
                held = line
                continue
            if kind not in only:
                continue
            if held:
                yield _event(held)
                held = b""
        yield _event(line)
    if held:
        yield _event(held)


def _kind(line: bytes) -> str:
    """The type of an event as `emit` writes it, without reading the rest."""
    first = line.find(_TYPE, 0, 64) + len(_TYPE)
    return line[first : line.find(b'"', first)].decode(errors="replace")


def _event(line: bytes) -> Event:
    try:
        event: Event = json.loads(line)
        return event
    except ValueError:  # the disk was full in the middle of a line
        return {"time": 0.0, "type": "warning", "message": f"an event was only partly written: {line[:80]!r}"}
