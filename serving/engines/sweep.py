"""Finds what an engine left behind when even its supervisor was killed.

Every engine runs in a working folder of its own, and so does everything it starts: that is what its processes are
known by. (Names and environments are not: vLLM rewrites its processes' titles over them.)
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

import psutil


def sweep(folder: Path) -> list[int]:
    """Kills every process whose working folder is `folder` or below it, and removes the folder. Returns their ids."""
    killed = []
    inside = os.path.realpath(folder)
    for process in psutil.process_iter():
        try:
            cwd = process.cwd()
            if cwd == inside or cwd.startswith(inside + os.sep):
                process.kill()
                killed.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or is somebody else's
            continue
    deadline = time.monotonic() + 10.0
    while any(_running(process) for process in killed) and time.monotonic() < deadline:
        time.sleep(0.02)
    shutil.rmtree(folder, ignore_errors=True)
    return [process.pid for process in killed]


def _running(process: psutil.Process) -> bool:
    """A zombie does not run; its parent, whoever that is, has yet to fetch its exit code."""
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
