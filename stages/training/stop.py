"""Stopping a run: SIGTERM to a worker, or a file in the run's folder that whoever wants it stopped writes.

Ray's workers are not children of the driver, so a signal to it does not reach them: the file does.
"""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from types import FrameType

STOP = "stop"
"""Name of the file in a run's folder."""


def request_stop(folder: Path) -> None:
    """Asks the run in a local folder to write a checkpoint and end, at its next step boundary."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / STOP).touch()


def clear_stop(folder: Path) -> None:
    """Forgets an earlier request, before a run starts."""
    (folder / STOP).unlink(missing_ok=True)


class StopFlag:
    """Whether this process was asked to stop. Ranks agree on it in the loop: any one of them is enough."""

    def __init__(self, folder: Path, watch_file: bool):
        self._file = folder / STOP if watch_file else None
        self._signalled = False
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGTERM, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signalled = True

    @property
    def set(self) -> bool:
        return self._signalled or (self._file is not None and self._file.exists())

    def close(self) -> None:
        """Gives the signal back to whoever had it."""
        if hasattr(self, "_previous"):
            signal.signal(signal.SIGTERM, self._previous)
