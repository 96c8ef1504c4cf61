"""A background process, identified by pid and start time, that is stopped together with all its descendants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from stages.processes import is_alive, wait_for_exit

_KILL_TIMEOUT_SECONDS = 5.0

_DETACH = """
import json, subprocess, sys
launch = json.loads(sys.argv[1])
with open(launch["log"], "ab") as log:
    child = subprocess.Popen(launch["command"], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=launch["cwd"],
                             start_new_session=True)
print(child.pid)
"""


class ManagedProcess:
    """A process that outlives the command that starts it; its record is the file `{folder}/{name}.json`."""

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.log = folder / f"{name}.log"
        self._record = folder / f"{name}.json"

    def find(self) -> psutil.Process | None:
        """The running process; None if it has ended, even if another process has its pid now."""
        try:
            record = json.loads(self._record.read_text())
            process = psutil.Process(record["pid"])
            if abs(process.create_time() - record["created"]) < 1.0 and is_alive(process):
                return process
        except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
            return None
        return None

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Starts it in a session of its own, with its output appended to the log."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        # Through an intermediate process that exits at once: a service must not be our child, or whatever kills this
        # process's children (Ray does so with its driver's) would kill the service too.
        launch = {"command": list(command), "cwd": str(cwd), "log": str(self.log)}
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _DETACH, json.dumps(launch)],
            env={**os.environ, **env},
            stdout=subprocess.PIPE,
            check=True,
        )
        self._write_record(int(child.stdout), list(command))

    def register_self(self) -> None:
        """Records the calling process, so that `stop` in another process ends it."""
        self._record.parent.mkdir(parents=True, exist_ok=True)
        self._write_record(os.getpid(), sys.argv)

    def remove_record(self) -> None:
        """Removes the record; the process is not affected."""
        self._record.unlink(missing_ok=True)

    def stop(self, grace_seconds: float = 15.0) -> bool:
        """SIGTERM to it, then to the descendants that are left, then SIGKILL. True if something was running."""
        process = self.find()
        if process is None:
            self.remove_record()
            return False
        family = [process, *process.children(recursive=True)]
        _signal(process, signal.SIGTERM)
        wait_for_exit([process], grace_seconds)
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, _KILL_TIMEOUT_SECONDS)):
            for member in family:
                if is_alive(member):
                    _signal(member, number)
            wait_for_exit(family, seconds)
        self.remove_record()
        return True

    def last_lines(self, count: int = 15) -> str:
        """The last lines of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _write_record(self, pid: int, command: list[str]) -> None:
        created = psutil.Process(pid).create_time()
        self._record.write_text(json.dumps({"pid": pid, "created": created, "command": command}))


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
