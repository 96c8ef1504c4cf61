"""Stopping a run: SIGTERM to a worker, or an object in the run's folder.

Ray's workers are not children of the driver, so a signal to it does not reach them: the object does.
"""

from __future__ import annotations

import logging
import signal
import threading
from types import FrameType

from stages.store.errors import StoreError
from stages.training.run import Run

STOP = "stop"
"""Name of the object in a run's folder."""

_POLL_SECONDS = 2.0
log = logging.getLogger(__name__)


def request_stop(run: Run) -> None:
    """Asks the run to write a checkpoint and end, at its next step boundary."""
    run.store.put(f"{run.folder}/{STOP}", b"")


def clear_stop(run: Run) -> None:
    """Removes an earlier request, before a run starts."""
    run.store.remove(f"{run.folder}/{STOP}")


class StopFlag:
    """Whether this process was asked to stop. Ranks agree on it in the loop: any one of them is enough.

    Args:
        poll: look for the run's stop object too; one rank is enough. A local file is looked for at every step; an
            object store is asked every two seconds, beside the training.
    """

    def __init__(self, run: Run, poll: bool):
        self._file = run.store.local_path(f"{run.folder}/{STOP}") if poll and run.store.is_local else None
        self._asked, self._closed = False, threading.Event()
        if poll and not run.store.is_local:
            threading.Thread(target=self._poll, args=(run,), name="stop-poll", daemon=True).start()
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _poll(self, run: Run) -> None:
        while True:
            try:
                if run.store.exists(f"{run.folder}/{STOP}"):
                    self._asked = True
                    return
            except StoreError as error:  # training does not need it now; the next poll asks again
                log.warning("cannot look for a request to stop: %s", error)
            if self._closed.wait(_POLL_SECONDS):
                return

    @property
    def set(self) -> bool:
        return self._asked or (self._file is not None and self._file.exists())

    def close(self) -> None:
        """Restores the signal handler that was set before."""
        self._closed.set()
        if hasattr(self, "_previous"):
            signal.signal(signal.SIGTERM, self._previous)
