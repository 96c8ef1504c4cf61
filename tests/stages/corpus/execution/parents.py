"""A program that is killed, and what becomes of the processes that it has started."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil


def until(met: Callable[[], Any], seconds: float = 200) -> None:
    """Waits for a condition; fails when it is not met in time."""
    deadline = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def killed_at_work(command: Sequence[str], out: Path) -> tuple[list[psutil.Process], list[psutil.Process]]:
    """Kills a program when two of its ranks have begun (each leaves a file in `out`).

    Returns:
        Its descendants, and those of them that are alive 20 s later.
    """
    parent = subprocess.Popen(command)
    try:
        until(lambda: len(list(out.iterdir())) == 2)
        family = psutil.Process(parent.pid).children(recursive=True)
    finally:
        parent.kill()
        parent.wait()
    return family, psutil.wait_procs(family, timeout=20)[1]
