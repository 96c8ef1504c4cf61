"""One background process, remembered by pid and start time, ended with all its descendants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

_DETACH = """
import json, subprocess, sys
launch = json.loads(sys.argv[1])
with open(launch["log"], "ab") as log:
    child = subprocess.Popen(launch["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=launch["cwd"],
                             start_new_session=True)
print(child.pid)
"""


class ManagedProcess:
    """A process that outlives the command that starts it; its record is `{folder}/{name}.json`."""

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.log = folder / f"{name}.log"
        self._record = folder / f"{name}.json"

    def find(self) -> psutil.Process | None:
        """The running process; None when it is gone. A pid that somebody else got meanwhile is not taken for it."""
        try:
            record = json.loads(self._record.read_text())
            process = psutil.Process(record["pid"])
            if abs(process.create_time() - record["created"]) < 1.0 and process.status() != psutil.STATUS_ZOMBIE:
                return process
        except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
            return None
        return None

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Starts it in a session of its own, output appended to the log."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        # By way of a process that ends at once: a service must not be our child, or whatever ends this process and its
        # children (Ray does so with its driver's) would end the service too.
        launch = {"command": list(command), "cwd": str(cwd), "log": str(self.log)}
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _DETACH, json.dumps(launch)],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            check=True,
        )
        self._remember(int(child.stdout), list(command))

    def adopt(self) -> None:
        """Makes this very process the one that `stop` ends."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._remember(os.getpid(), sys.argv)

    def forget(self) -> None:
        """Removes the record."""
        self._record.unlink(missing_ok=True)

    def _remember(self, pid: int, command: list[str]) -> None:
        created = psutil.Process(pid).create_time()
        self._record.write_text(json.dumps({"pid": pid, "created": created, "command": command}))

    def stop(self, grace_seconds: float = 15.0) -> bool:
        """SIGTERM to it, then to the descendants it left behind, then SIGKILL. True if something was running."""
        process = self.find()
        if process is None:
            self.forget()
            return False
        family = [process, *process.children(recursive=True)]
        _signal(process, signal.SIGTERM)
        _wait([process], grace_seconds)
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
            for member in family:
                if _alive(member):
                    _signal(member, number)
            _wait(family, seconds)
        self.forget()
        return True

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


def _wait(processes: Sequence[psutil.Process], seconds: float) -> None:
    """Until all have ended; one that its parent has not collected yet has ended too."""
    deadline = time.monotonic() + seconds
    while any(_alive(process) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)


def _alive(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
