"""How loaders are timed, on both sides: rows a second, and memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

BETWEEN_LOOKS = 16
"""Batches between two readings of the clock: a reading costs little compared with a batch, but not nothing."""


def rows_per_second(step: Callable[[], int], seconds: float = 1.0) -> float:
    """Rate of a function that makes a batch and returns its rows, over at least so many seconds."""
    step()
    rows, began = 0, time.perf_counter()
    while True:
        for _ in range(BETWEEN_LOOKS):
            rows += step()
        spent = time.perf_counter() - began
        if spent >= seconds:
            return rows / spent


def memory() -> dict[str, int]:
    """Bytes that this process holds now: `anonymous`, which mapped files are not part of, and `resident` at most."""
    lines = (line.split() for line in Path("/proc/self/status").read_text().splitlines())
    sizes = {parts[0].rstrip(":"): int(parts[1]) << 10 for parts in lines if parts[0] in ("RssAnon:", "VmHWM:")}
    return {"anonymous": sizes["RssAnon"], "resident": sizes["VmHWM"]}
