"""How fast this machine runs what the tests mostly run: Python.

The rate of matrix products, which scales training, misleads here: processors with AMX multiply three times as fast as
others and start processes no faster.
"""

from __future__ import annotations

import statistics
import time

TURNS = 1_000_000
REPEATS = 5


def loop_seconds() -> float:
    """Seconds that one process takes for a million turns of a plain loop over integers and a dictionary; the median."""
    return statistics.median(_seconds() for _ in range(REPEATS))


def _seconds() -> float:
    began = time.perf_counter()
    total, table = 0, {}
    for number in range(TURNS):
        total = (total * 31 + number) & 0xFFFFFFFF
        table[total & 1023] = number
    return time.perf_counter() - began
