"""Copies standard input to a log of bounded size and rate, until it ends: `python log_writer.py LOG`.

Standard library only, and run by path. A full log becomes `LOG.1`, in place of the one before. What a service writes
beyond `WINDOW_BYTES` in a window, or what a full disk does not take, is left out, and a line says how much. The writer
itself never ends before the service: without a reader the service's next line would end it.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

MAX_BYTES = 16 << 20
"""Of one log; with the one before at most twice as much."""
WINDOW_BYTES, WINDOW_SECONDS = 1 << 20, 10.0


class LogWriter:
    """A log that is appended to."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES, window_bytes: int = WINDOW_BYTES):
        self.path, self.max_bytes, self.window_bytes = path, max_bytes, window_bytes
        self._file = path.open("ab", buffering=0)
        self._window_began, self._in_window, self._left_out = time.monotonic(), 0, 0

    def write(self, data: bytes) -> None:
        """Appends the data, or counts it as left out."""
        if time.monotonic() - self._window_began >= WINDOW_SECONDS:
            self.report_left_out()
            self._window_began, self._in_window = time.monotonic(), 0
        self._in_window += len(data)
        if self._in_window > self.window_bytes or not self._append(data):
            self._left_out += len(data)

    def report_left_out(self) -> None:
        """Says how much was left out since the last report, if anything was."""
        if self._left_out:
            limit = f"more than {self.window_bytes} in {WINDOW_SECONDS:.0f} s, or the disk was full"
            left_out, self._left_out = self._left_out, 0
            if not self._append(f"\n[{left_out} bytes of this log were left out: {limit}]\n".encode()):
                self._left_out = left_out

    def _append(self, data: bytes) -> bool:
        """False if the disk did not take it."""
        try:
            if self._file.tell() + len(data) > self.max_bytes:
                with suppress(FileNotFoundError):  # it was renamed before, when the next one could not be opened
                    os.replace(self.path, f"{self.path}.1")
                full, self._file = self._file, self.path.open("ab", buffering=0)
                full.close()
            return self._file.write(data) == len(data)
        except OSError:
            return False


def main() -> None:
    """Copies until the last process that has the other end of the pipe has ended."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the service's last lines come after its signal
    writer = LogWriter(Path(sys.argv[1]))
    while data := os.read(0, 1 << 16):
        writer.write(data)
    writer.report_left_out()


if __name__ == "__main__":
    main()
