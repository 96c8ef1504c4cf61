"""Processes that tests leave running. All that a run of the tests starts has a mark in its environment."""

from __future__ import annotations

import contextlib
import time

import psutil

from stages.processes import is_alive

VARIABLE = "TESTS_RUN_BY"
"""The mark; its value is the pid of the run. Tests pass their environment on, but not an installation's variables."""


def find_processes(run: str) -> list[psutil.Process]:
    """The running processes with the mark of a run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(VARIABLE) == run and is_alive(process):
                found.append(process)
    return found


def kill_leftovers(run: str, timeout_seconds: float) -> list[str]:
    """Waits for the processes of a run to end, kills those that remain, and returns their command lines."""
    deadline = time.monotonic() + timeout_seconds
    while (left := find_processes(run)) and time.monotonic() < deadline:
        time.sleep(0.5)
    lines = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline())[:150])
            process.kill()
    return lines
