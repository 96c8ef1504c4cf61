"""Logs that no client can fill: repeated messages are left out and counted, and files are cut to a size."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

REPEATS, WINDOW_SECONDS = 10, 60.0
"""Records of one message that pass in a window; a client that causes one with each request would fill the disk."""
MAX_MESSAGES = 1000
"""Messages that are counted at a time."""
MAX_LOG_BYTES = 16 << 20
"""Of an engine's log; what is older is in a file beside it, of the same size."""


class RepeatFilter(logging.Filter):
    """Passes each message `REPEATS` times a window. The next one that passes says how many were left out."""

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        super().__init__()
        self.clock = clock
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}
        """By logger and first line before its arguments: start of the window, and records in it."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is written."""
        now, key = self.clock(), (record.name, str(record.msg).partition("\n")[0][:200])
        began, count = self._seen.get(key, (now, 0))
        if now - began >= WINDOW_SECONDS:
            if count > REPEATS:
                record.msg = f"{record.msg} ({count - REPEATS} more of these were left out since the last)"
            began, count = now, 0
        if len(self._seen) >= MAX_MESSAGES:
            self._seen.clear()
        self._seen[key] = began, count + 1
        return count < REPEATS


def limit_log(path: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
    """Moves the content of a log beyond `max_bytes` to `{path}.1`, while a process appends to it.

    The process keeps its open file, so the content is copied and the file cut; lines written in between are lost.
    """
    with contextlib.suppress(FileNotFoundError):
        if path.stat().st_size > max_bytes:
            shutil.copyfile(path, f"{path}.1")
            os.truncate(path, 0)
