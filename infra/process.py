"""One background process, remembered by pid and start time, ended with all its descendants."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil


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
        with self.log.open("ab") as log:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **env},
                cwd=cwd,
                start_new_session=True,
            )
        self._remember(child.pid, list(command))

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
        psutil.wait_procs([process], timeout=grace_seconds)
        for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
            left = [member for member in family if _alive(member)]
            for member in left:
                _signal(member, number)
            psutil.wait_procs(left, timeout=seconds)
        self.forget()
        return True

    def last_lines(self, count: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])


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
