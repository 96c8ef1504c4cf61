"""One writer a fingerprint: a lease in the store with a heartbeat, taken over when its holder is gone.

A lease is an object `lease-{n}` in the artifact's folder, created exclusively; whoever creates the highest n holds it.
Its holder rewrites it every few seconds. One whose holder is gone is taken over by creating `lease-{n+1}` exclusively:

- a holder in this very process space (host, boot, pid namespace) is gone when its process is;
- any other when its heartbeat is older than STALE_SECONDS by the clocks of both machines and did not move while we
  watched; or, whatever the clocks say, when it has not moved for STALE_SECONDS while we waited.

A holder that was taken for dead (suspended, cut off from the store) finds that out with `confirm`, before it commits.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from stages.store.errors import LeaseHeldError, StoreError
from stages.store.store import Store

BEAT_SECONDS = 5.0
"""Between two heartbeats."""
STALE_SECONDS = 60.0
"""A lease whose heartbeat is older than this is dead."""
_POLL_SECONDS = 1.0
_held: set[str] = set()
"""Tokens of the leases that this process holds."""


@dataclass(frozen=True)
class Holder:
    """Who holds a lease, and its last sign of life."""

    number: int
    pid: int
    host: str
    beat: float
    """Time of day of the last heartbeat, by the holder's clock, in seconds."""
    space: str = ""
    """Host, boot and pid namespace: where the pid means something."""
    token: str = ""
    """Tells the leases of one process apart."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def surely_dead(self) -> bool:
        """True when its process was here and is gone, or is this one and has let go of it."""
        if not self.space or self.space != _space():
            return False
        if self.pid == os.getpid():
            return self.token not in _held
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except PermissionError:
            return False
        return _zombie(self.pid)


class Lease:
    """`with Lease(store, folder):` holds the right to write below `folder`.

    Raises:
        LeaseHeldError: another live process holds it.
    """

    def __init__(self, store: Store, folder: str):
        self.store, self.folder = store, folder
        self.stale_after, self.beat = STALE_SECONDS, BEAT_SECONDS
        self._number, self._token = 0, secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched: tuple[Holder, float] | None = None
        self._trouble: StoreError | None = None

    def __enter__(self) -> Lease:
        holder = None if self.held else self.acquire()
        if holder is not None:
            raise LeaseHeldError(
                f"{self.store.where(self.folder)} is being written by {holder}; wait for it or stop it"
            )
        return self

    @property
    def held(self) -> bool:
        """True from `acquire` until the end of the `with` block."""
        return self._thread is not None

    def free(self) -> bool:
        """True when nobody holds it, or one that is surely dead. Does not wait to find out."""
        holder = self.holder()
        return holder is None or holder.surely_dead

    def acquire(self) -> Holder | None:
        """Takes the lease, if it is free or its holder is dead, and returns None; else whoever holds it.

        A heartbeat that looks old may come from a clock that is slow: it is watched for two beats first.
        """
        holder = self.holder()
        if holder is not None and not holder.surely_dead:
            old = time.time() - holder.beat > self.stale_after
            if not self._still(holder, 2 * self.beat if old else self.stale_after, wait=old):
                return holder
        number = 0 if holder is None else holder.number + 1
        _held.add(self._token)  # before anybody can see it
        try:
            if not self.store.create(self._name(number), self._record()):
                return self.holder() or self.acquire()
            self._number = number
            newest = self.holder()
            if newest is not None and newest.number > number:  # somebody was quicker by one
                return newest
            self._stop.clear()
            self._thread = threading.Thread(target=self._keep_beating, name="lease-heartbeat", daemon=True)
            self._thread.start()
            return None
        finally:
            if not self.held:
                _held.discard(self._token)

    def confirm(self) -> None:
        """Asks the store whether the lease is still ours: to be called before anything that cannot be taken back.

        Raises:
            LeaseHeldError: somebody took it over, since we gave no sign of life for long.
        """
        newest = self.holder()
        if newest is None or newest.number != self._number:
            cause = f" ({self._trouble})" if self._trouble else ""
            raise LeaseHeldError(
                f"{self.store.where(self.folder)}: {newest or 'somebody'} took this work over, since this process had "
                f"given no sign of life for {self.stale_after:.0f} s{cause}"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        _held.discard(self._token)  # before it is removed: should the store be away, it is dead all the same
        try:
            for number in self._numbers():
                if number <= self._number:
                    self.store.remove(self._name(number))
        except StoreError as trouble:
            if error is None:
                raise
            error.add_note(f"and the lease could not be given back: {trouble}")

    def _name(self, number: int) -> str:
        return f"{self.folder}/lease-{number}"

    def _record(self) -> bytes:
        own = {"pid": os.getpid(), "host": socket.gethostname(), "space": _space(), "token": self._token}
        return json.dumps(own | {"beat": time.time()}).encode()

    def _numbers(self) -> list[int]:
        return lease_numbers(self.store.files(self.folder), self.folder)

    def holder(self) -> Holder | None:
        """Who holds it, alive or not; None if nobody does."""
        numbers = self._numbers()
        if not numbers:
            return None
        try:
            record: dict[str, Any] = self.store.read_json(self._name(max(numbers)))
        except FileNotFoundError:  # given back this moment
            return None
        try:
            beat, own = float(record["beat"]), (record.get("space", ""), record.get("token", ""))
            return Holder(max(numbers), int(record["pid"]), str(record["host"]), beat, *own)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            where = self.store.where(self._name(max(numbers)))
            raise StoreError(
                f"{where} is no lease that we wrote ({error!r}); remove it if nobody works there"
            ) from error

    def _still(self, holder: Holder, seconds: float, *, wait: bool) -> bool:
        """True when the holder's heartbeat has not moved for so long, by our own clock, while we looked at it."""
        now = time.monotonic()
        if self._watched is None or self._watched[0] != holder:
            self._watched = (holder, now)
        while wait and time.monotonic() - self._watched[1] < seconds:
            time.sleep(min(_POLL_SECONDS, seconds))
            if self.holder() != holder:
                return False
        return time.monotonic() - self._watched[1] >= seconds

    def _keep_beating(self) -> None:
        while not self._stop.wait(self.beat):
            try:
                self.store.put(self._name(self._number), self._record())
                self._trouble = None
            except StoreError as error:
                # The work may still succeed when the store is back in time; `confirm` tells, and names this.
                self._trouble = error


def lease_numbers(names: list[str], folder: str) -> list[int]:
    """Numbers of the leases among the names of a folder's objects."""
    start = f"{folder}/lease-"
    ends = [name.removeprefix(start) for name in names if name.startswith(start)]
    return [int(end) for end in ends if end.isdigit()]


def _zombie(pid: int) -> bool:
    """True for a process that has ended and that nobody has asked about yet, as under an init that never asks."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:  # not Linux, or gone by now
        return False


def _space() -> str:
    """Where a pid of ours means something. Containers share a host's name and boot, but not its pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()
