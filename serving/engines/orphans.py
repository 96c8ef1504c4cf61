"""Finds and kills what an engine left behind when its supervisor was killed too.

Every engine runs in a working folder of its own, which everything that it starts inherits: that identifies its
processes. (Their names and environments do not: vLLM overwrites both with the titles that it gives its processes.)
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import psutil

from stages.processes import wait_for_exit

_EXIT_TIMEOUT_SECONDS = 10.0


def kill_orphans(folder: Path) -> list[int]:
    """Kills every process whose working folder is `folder` or below it, and removes the folder. Returns their pids."""
    killed = []
    root = os.path.realpath(folder)
    for process in psutil.process_iter():
        try:
            cwd = process.cwd()
            if cwd == root or cwd.startswith(root + os.sep):
                process.kill()
                killed.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended, or belongs to another user
            continue
    wait_for_exit(killed, _EXIT_TIMEOUT_SECONDS)
    shutil.rmtree(folder, ignore_errors=True)
    return [process.pid for process in killed]
