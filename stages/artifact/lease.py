"""One writer a fingerprint: a lease in the store with a heartbeat, taken over when its holder is gone.

A lease is an object `lease-{n}` in the artifact's folder, created exclusively; whoever creates the highest n holds it.
Its holder rewrites it every few seconds. One whose heartbeat is older than `stale_after` (or whose process on this very
machine is gone) is taken over by creating `lease-{n+1}` exclusively.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from types import TracebackType

from stages.artifact.errors import LeaseHeldError
from stages.artifact.store import Store

_BEAT_SECONDS = 5.0
STALE_SECONDS = 60.0
"""A lease whose heartbeat is older than this is dead."""


class Lease:
    """`with Lease(store, folder):` holds the right to write below `folder`.

    Raises:
        LeaseHeldError: another live process holds it.
    """

    def __init__(self, store: Store, folder: str, stale_after: float = STALE_SECONDS):
        self.store, self.folder, self.stale_after = store, folder, stale_after
        self._number = 0
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Lease:
        held = self._newest()
        if held is not None:
            number, record = held
            if self._alive(record):
                raise LeaseHeldError(
                    f"{self.store.path(self.folder)} is being written by process {record['pid']} on {record['host']}; "
                    "wait for it or stop it"
                )
            self._number = number + 1
        if not self.store.create(self._name(), self._record()):
            raise LeaseHeldError(f"{self.store.path(self.folder)}: another process took the lease just now")
        self._thread = threading.Thread(target=self._beat, name="lease-heartbeat", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
        for number in self._numbers():
            if number <= self._number:
                self.store.remove(f"{self.folder}/lease-{number}")

    def _name(self) -> str:
        return f"{self.folder}/lease-{self._number}"

    def _record(self) -> bytes:
        return json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "beat": time.time()}).encode()

    def _numbers(self) -> list[int]:
        start = f"{self.folder}/lease-"
        ends = [name.removeprefix(start) for name in self.store.list(self.folder) if name.startswith(start)]
        return [int(end) for end in ends if end.isdigit()]

    def _newest(self) -> tuple[int, dict] | None:
        numbers = self._numbers()
        if not numbers:
            return None
        newest = max(numbers)
        return newest, self.store.read_json(f"{self.folder}/lease-{newest}")

    def _alive(self, record: dict) -> bool:
        if time.time() - record["beat"] > self.stale_after:
            return False
        if record["host"] == socket.gethostname():
            try:
                os.kill(record["pid"], 0)
            except ProcessLookupError:
                return False
            except PermissionError:
                return True
        return True

    def _beat(self) -> None:
        while not self._stop.wait(_BEAT_SECONDS):
            self.store.put(self._name(), self._record())
