"""Whether a process of this machine is still running: for leases, services, engines and tests alike."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

import psutil

_POLL_SECONDS = 0.02


def is_alive(process: psutil.Process | int) -> bool:
    """True while a process runs. A zombie has ended, although its parent has not reaped it yet.

    Args:
        process: a bare pid, or a `psutil.Process`, which also knows its start time: a later process that was given the
            same pid is not mistaken for it.
    """
    try:
        if isinstance(process, int):
            os.kill(process, 0)  # works where /proc hides other users' processes (`hidepid`)
            process = psutil.Process(process)
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except PermissionError:  # another user's
        return True
    except psutil.AccessDenied:
        return True
    except (ProcessLookupError, psutil.NoSuchProcess):
        return False


def wait_for_exit(processes: Iterable[psutil.Process], timeout_seconds: float) -> list[psutil.Process]:
    """Waits until all have ended; returns those that are still alive after `timeout_seconds`.

    Unlike `psutil.wait_procs` it does not wait for a zombie whose parent is another process.
    """
    deadline = time.monotonic() + timeout_seconds
    while (alive := [process for process in processes if is_alive(process)]) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return alive
