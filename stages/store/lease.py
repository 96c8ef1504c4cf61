"""One writer per fingerprint: a lease in the store with a heartbeat, taken over when its holder is dead.

A lease is an object `lease-{n}` in the artifact's folder, created exclusively; whoever creates the highest n holds it.
Its holder rewrites it every few seconds, and never creates it again. A dead holder's lease is taken over by creating
`lease-{n+1}` exclusively:

- a holder in our own pid namespace (same host and boot) is dead when its process has ended;
- any other is dead when its heartbeat is older than STALE_SECONDS by the clocks of both machines and did not change
  while we watched; or, whatever the clocks say, when it has not changed for STALE_SECONDS while we waited.

A holder that was taken for dead (suspended, cut off from the store) finds out with `confirm`, before each step of its
commit. What tells leases apart is their token: numbers begin again when the last holder has removed its lease.
"""

from __future__ import annotations

import os
import re
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from stages.processes import is_alive
from stages.store.errors import LeaseHeldError, StoreError
from stages.store.fields import Printable, describe
from stages.store.store import Store

HEARTBEAT_SECONDS = 5.0
"""Interval between two heartbeats."""
STALE_SECONDS = 60.0
"""A lease whose heartbeat is older than this counts as dead."""
_POLL_SECONDS = 1.0
_ATTEMPTS = 5
"""Creations that may fail in a row because the lease of that number was there a moment before."""
_RECORD_BYTES = 512
"""Records are padded to one length, so that a heartbeat overwrites the last one as a whole."""
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")
_held: set[str] = set()
"""Tokens of the leases that this process holds."""


class LeaseRecord(BaseModel):
    """The content of a lease, as JSON."""

    model_config = ConfigDict(frozen=True)
    pid: int = Field(gt=0, lt=1 << 31)
    host: Printable
    space: Printable = ""
    """See `Holder.pid_namespace`."""
    token: Printable = ""
    beat: FiniteFloat
    """See `Holder.heartbeat`."""


@dataclass(frozen=True)
class Holder:
    """The process that holds a lease, and its last heartbeat."""

    number: int
    pid: int
    host: str
    heartbeat: float
    """Time of the last heartbeat in seconds since the epoch, by the holder's clock."""
    pid_namespace: str = ""
    """Host, boot and pid namespace in which the pid is valid."""
    token: str = ""
    """Distinguishes the leases of one process."""

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    @property
    def is_known_dead(self) -> bool:
        """True if its process ran in our pid namespace and has ended, or is this one and has released the lease."""
        if not self.pid_namespace or self.pid_namespace != _pid_namespace():
            return False
        if self.pid == os.getpid():
            return self.token not in _held
        return not is_alive(self.pid)


class Lease:
    """`with Lease(store, folder):` holds the exclusive right to write below `folder`.

    Raises:
        LeaseHeldError: another live process holds it.
    """

    def __init__(self, store: Store, folder: str):
        self.store, self.folder = store, folder
        self.stale_seconds, self.heartbeat_seconds = STALE_SECONDS, HEARTBEAT_SECONDS
        self._number, self._token = 0, secrets.token_hex(8)
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._watched: tuple[Holder, float] | None = None
        self._last_error: StoreError | None = None

    def __enter__(self) -> Lease:
        holder = None if self.is_held else self.acquire()
        if holder is not None:
            raise LeaseHeldError(
                f"{self.store.where(self.folder)} is being written by {holder}; wait for it or stop it"
            )
        return self

    @property
    def is_held(self) -> bool:
        """True from `acquire` until the end of the `with` block."""
        return self._thread is not None

    def is_free(self) -> bool:
        """True if nobody holds it, or a holder that is known to be dead. Never waits."""
        holder = self.holder()
        return holder is None or holder.is_known_dead

    def acquire(self) -> Holder | None:
        """Takes the lease if it is free or its holder is dead, and returns None; otherwise returns its holder.

        A heartbeat that looks old may come from a slow clock: it is watched for two heartbeat intervals first.
        """
        holder = self.holder()
        if holder is not None and not holder.is_known_dead:
            old = time.time() - holder.heartbeat > self.stale_seconds
            if not self._heartbeat_stopped(holder, 2 * self.heartbeat_seconds if old else self.stale_seconds, wait=old):
                return holder
        _held.add(self._token)  # before the lease becomes visible
        try:
            for _ in range(_ATTEMPTS):
                number = 0 if holder is None else holder.number + 1
                if self.store.create(self._name(number), self._record()):
                    break
                holder = self.holder()
                if holder is not None:
                    return holder
            else:
                raise StoreError(f"{self.store.where(self._name(number))} is not a lease, and in its place; remove it")
            self._number = number
            newest = self.holder()
            if newest is not None and newest.number > number:  # another process created the next one first
                return newest
            self._stop.clear()
            self._thread = threading.Thread(target=self._send_heartbeats, name="lease-heartbeat", daemon=True)
            self._thread.start()
            return None
        finally:
            if not self.is_held:
                _held.discard(self._token)

    def confirm(self) -> None:
        """Checks in the store that the lease is still ours: to be called before anything irreversible.

        Raises:
            LeaseHeldError: another process took it over, since our heartbeat had stopped for too long.
        """
        newest = self.holder()
        if not self._is_own(newest):
            cause = f" ({self._last_error})" if self._last_error else ""
            raise LeaseHeldError(
                f"{self.store.where(self.folder)}: {newest or 'another process'} took over the lease, because this "
                f"process had sent no heartbeat for {self.stale_seconds:.0f} s{cause}"
            )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        if self._thread:
            self._thread.join()
            self._thread = None
        _held.discard(self._token)  # first: if the store is unreachable the lease counts as dead all the same
        try:
            if self._is_own(self.holder()):  # else whoever took it over removes ours
                for number in self._numbers():
                    if number <= self._number:
                        self.store.remove(self._name(number))
        except StoreError as failure:
            if error is None:
                raise
            error.add_note(f"and the lease could not be released: {failure}")

    def _name(self, number: int) -> str:
        return f"{self.folder}/lease-{number}"

    def _record(self) -> bytes:
        own = {"pid": os.getpid(), "host": socket.gethostname(), "space": _pid_namespace(), "token": self._token}
        return LeaseRecord(**own, beat=time.time()).model_dump_json().encode().ljust(_RECORD_BYTES)

    def _is_own(self, holder: Holder | None) -> bool:
        return holder is not None and (holder.number, holder.token) == (self._number, self._token)

    def _numbers(self) -> list[int]:
        return lease_numbers(self.store.files(self.folder), self.folder)

    def holder(self) -> Holder | None:
        """The holder, alive or not; None if nobody holds it."""
        numbers = self._numbers()
        if not numbers:
            return None
        number = max(numbers)
        try:
            record = LeaseRecord.model_validate_json(self.store.read(self._name(number)))
        except FileNotFoundError:  # released since it was listed
            return None
        except ValueError as error:
            where = self.store.where(self._name(number))
            raise StoreError(
                f"{where} is not a valid lease ({describe(error)}); remove it if no process writes to that folder"
            ) from error
        return Holder(number, record.pid, record.host, record.beat, record.space, record.token)

    def _heartbeat_stopped(self, holder: Holder, seconds: float, *, wait: bool) -> bool:
        """True if the holder's heartbeat has not changed for so long, by our own clock, while we watched it."""
        now = time.monotonic()
        if self._watched is None or self._watched[0] != holder:
            self._watched = (holder, now)
        while wait and time.monotonic() - self._watched[1] < seconds:
            time.sleep(min(_POLL_SECONDS, seconds))
            if self.holder() != holder:
                return False
        return time.monotonic() - self._watched[1] >= seconds

    def _send_heartbeats(self) -> None:
        while not self._stop.wait(self.heartbeat_seconds):
            try:
                if not self.send_heartbeat():
                    return
                self._last_error = None
            except StoreError as error:
                # The work may still succeed if the store is back in time; else `confirm` fails and names this error.
                self._last_error = error

    def send_heartbeat(self) -> bool:
        """Rewrites our lease. False if it was taken over or removed: it is lost for good, and not created again."""
        return self.store.rewrite(self._name(self._number), self._record(), self._is_own_record)

    def _is_own_record(self, data: bytes) -> bool:
        try:
            return LeaseRecord.model_validate_json(data).token == self._token
        except ValueError:
            return False


def lease_numbers(names: list[str], folder: str) -> list[int]:
    """Numbers of the leases among the names of a folder's objects."""
    start = f"{folder}/lease-"
    ends = [name.removeprefix(start) for name in names if name.startswith(start)]
    return [int(end) for end in ends if _NUMBER.fullmatch(end)]


def _pid_namespace() -> str:
    """Host, boot and pid namespace of this process. Containers may share the first two, but not the pids."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:  # not Linux
        return socket.gethostname()
