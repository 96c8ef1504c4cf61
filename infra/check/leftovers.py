"""Processes that tests leave behind. Everything that a run of the tests starts carries a mark in its environment."""

from __future__ import annotations

import contextlib
import time

import psutil

VARIABLE = "TESTS_RUN_BY"
"""The mark: the process of this run. Tests hand their environment on, but for what is of an installation."""


def marked(run: str) -> list[psutil.Process]:
    """The living processes of a run."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.environ().get(VARIABLE) == run and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def end(run: str, patience: float) -> list[str]:
    """Gives what a run left some seconds to end by itself, kills the rest and returns its command lines."""
    deadline = time.monotonic() + patience
    while (left := marked(run)) and time.monotonic() < deadline:
        time.sleep(0.5)
    lines = []
    for process in left:
        with contextlib.suppress(psutil.Error):
            lines.append(" ".join(process.cmdline())[:150])
            process.kill()
    return lines
