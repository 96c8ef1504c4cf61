"""What tests leave running is named and ended."""

from __future__ import annotations

import os
import subprocess
import sys

from infra.check import leftovers

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)  # left over"]


def test_what_carries_the_mark_is_named_and_ended_and_nothing_else() -> None:
    mine, other = (
        subprocess.Popen(SLEEP, env=os.environ | {leftovers.VARIABLE: run}) for run in ("this one", "another")
    )
    try:
        (line,) = leftovers.end("this one", patience=0.1)
        assert line.endswith("# left over")
        assert mine.wait(10) != 0
        assert other.poll() is None
        assert leftovers.end("this one", patience=0) == []
    finally:
        mine.kill()
        other.kill()
        other.wait()


def test_what_ends_by_itself_is_waited_for() -> None:
    quick = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    ending = subprocess.Popen(quick, env=os.environ | {leftovers.VARIABLE: "ends"}, stdin=subprocess.PIPE)
    assert ending.stdin is not None
    ending.stdin.close()
    assert leftovers.end("ends", patience=60) == []
    assert ending.wait() == 0
