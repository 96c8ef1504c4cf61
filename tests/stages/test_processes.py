"""Whether a process is alive, however it is known."""

from __future__ import annotations

import os
import subprocess
import sys

import psutil
import pytest

from stages.processes import is_alive, wait_for_exit

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_a_process_is_alive_until_it_ends_and_not_as_a_zombie() -> None:
    with subprocess.Popen(SLEEP) as child:
        process = psutil.Process(child.pid)
        assert is_alive(process) and is_alive(child.pid)
        child.kill()
        assert wait_for_exit([process], 60) == []
        assert process.status() == psutil.STATUS_ZOMBIE  # its parent, this process, has not reaped it
        assert not is_alive(process) and not is_alive(child.pid)
    assert not is_alive(process) and not is_alive(child.pid)


def test_who_does_not_end_in_time_is_returned() -> None:
    own = psutil.Process()
    assert wait_for_exit([own], 0.05) == [own]


def test_a_process_of_another_user_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refuse)
    assert is_alive(2**22 + 1)  # /proc may hide it (`hidepid`)
