"""Processes that outlive their tests are reported and killed."""

from __future__ import annotations

import os
import subprocess
import sys

from infra.check import leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)  # left over"]


def test_only_processes_with_the_mark_are_killed() -> None:
    mine, other = (
        subprocess.Popen(SLEEP, env=os.environ | {leftovers.VARIABLE: run}) for run in ("this one", "another")
    )
    try:
        (line,) = leftovers.kill_leftovers("this one", timeout_seconds=0.1)
        assert line.endswith("# left over")
        assert mine.wait(10) != 0
        assert other.poll() is None
        assert leftovers.kill_leftovers("this one", timeout_seconds=0) == []
    finally:
        mine.kill()
        other.kill()
        other.wait()


def test_processes_that_end_in_time_are_not_reported() -> None:
    quick = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    ending = subprocess.Popen(quick, env=os.environ | {leftovers.VARIABLE: "ends"}, stdin=subprocess.PIPE)
    assert ending.stdin is not None
    ending.stdin.close()
    assert leftovers.kill_leftovers("ends", timeout_seconds=60) == []
    assert ending.wait() == 0
