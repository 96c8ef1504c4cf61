"""Polls the deployment record."""

from __future__ import annotations

import logging
import threading
import time

from serving.record import RECORD, DeploymentRecord, find_record
from stages.store import Store

LOG = logging.getLogger("headwater.serving")
LOCAL_POLL_SECONDS, REMOTE_POLL_SECONDS = 0.5, 2.0
"""Between two reads, unless the gateway's settings say otherwise."""
SLOW_READ_SECONDS = 30.0
"""A read that takes longer is reported as an error while it continues."""


class RecordPoller:
    """The last record that could be read, and the error of the last read.

    It reads in a thread of its own, so that a store that does not respond for minutes delays neither the engines'
    rollout nor the gateway's exit. The last record stays valid whatever happens to the store, also if the record
    disappears: an emptied bucket and a lost mount look like that. To serve nothing, write an empty record.
    """

    def __init__(self, store: Store, interval_seconds: float | None = None):
        self.store = store
        self.interval_seconds = interval_seconds or (LOCAL_POLL_SECONDS if store.is_local else REMOTE_POLL_SECONDS)
        self.record: DeploymentRecord | None = None
        """None until one could be read."""
        self._error: str | None = None
        self._read_began: float | None = None
        self._stopped = threading.Event()

    @property
    def error(self) -> str | None:
        """Why the last read failed, or has not ended; None if it succeeded."""
        began = self._read_began
        if began is not None and (waited := time.monotonic() - began) > SLOW_READ_SECONDS:
            return f"{self.store.url} has not responded for {waited:.0f} s"
        return self._error

    def start(self) -> None:
        """Starts the thread. It ends with the process, or after `stop()`."""
        threading.Thread(target=self._run, name="deployment record", daemon=True).start()

    def stop(self) -> None:
        """Ends the thread once the current read has ended; does not wait for it."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._read_began = time.monotonic()
            try:
                self._accept(find_record(self.store))
            except Exception as error:  # unreachable (each kind of store has its own errors), or an invalid record
                self._fail(str(error) or repr(error))
            self._read_began = None
            self._stopped.wait(self.interval_seconds)

    def _accept(self, record: DeploymentRecord | None) -> None:
        if record is None and self.record is not None:
            self._fail(f"{self.store.where(RECORD)} is missing; the last deployment stays in place")
            return
        if self._error:
            LOG.info("the deployment record can be read again")
        self.record, self._error = record, None

    def _fail(self, error: str) -> None:
        if self._error is None:
            LOG.warning("the deployment record cannot be read: %s", error)
        self._error = error
