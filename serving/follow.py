"""Reads the deployment record again and again."""

from __future__ import annotations

import logging
import threading
import time

from serving.record import DeploymentRecord, find_record
from stages.store import Store

LOG = logging.getLogger("headwater.serving")
LOCAL_SECONDS, REMOTE_SECONDS = 0.5, 2.0
"""Between two reads, unless the gateway's settings say otherwise."""
SLOW_SECONDS = 30.0
"""A read that takes longer is told as an error while it goes on."""


class RecordFollower:
    """The newest record that could be read, and why it cannot be read now.

    It reads in a thread of its own, so that a store that is away for minutes holds up neither the engines' rollout nor
    the gateway's end. What was read last stays, whatever happens to the store: also if the record is no longer there,
    for that is how an emptied bucket or a lost mount looks. An empty record is how to say that nothing is to be served.
    """

    def __init__(self, store: Store, seconds: float | None = None):
        self.store = store
        self.seconds = seconds or (LOCAL_SECONDS if store.is_local else REMOTE_SECONDS)
        self.record: DeploymentRecord | None = None
        """None until it could be read once."""
        self._error: str | None = None
        self._read_began: float | None = None
        self._stopped = threading.Event()

    @property
    def error(self) -> str | None:
        """Why the record could not be read the last time; None if it could."""
        began = self._read_began
        if began is not None and (waited := time.monotonic() - began) > SLOW_SECONDS:
            return f"{self.store.url} has not answered for {waited:.0f} s"
        return self._error

    def start(self) -> None:
        """Begins to read. It ends with the program, or after `stop()`."""
        threading.Thread(target=self._run, name="deployment record", daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.is_set():
            self._read_began = time.monotonic()
            try:
                self._take(find_record(self.store))
            except Exception as error:  # the store is away (each kind has its own errors) or holds nonsense: go on
                self._failed(str(error) or repr(error))
            self._read_began = None
            self._stopped.wait(self.seconds)

    def _take(self, record: DeploymentRecord | None) -> None:
        if record is None and self.record is not None:
            self._failed(f"the deployment record is gone from {self.store.url}; what was served goes on")
            return
        if self._error:
            LOG.info("the deployment record can be read again")
        self.record, self._error = record, None

    def _failed(self, error: str) -> None:
        if self._error is None:
            LOG.warning("the deployment record cannot be read: %s", error)
        self._error = error
