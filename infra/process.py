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
_WRITER_TIMEOUT_SECONDS = 2.0
"""For the log's writer to end after the process."""
_LOG_WRITER = Path(__file__).with_name("log_writer.py")

_DETACH = """
import json, os, subprocess, sys
os.umask(0o077)
launch = json.loads(sys.argv[1])
writer = subprocess.Popen(launch["writer"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, cwd=launch["cwd"],
                          stderr=subprocess.DEVNULL, start_new_session=True)
child = subprocess.Popen(launch["command"], stdin=subprocess.DEVNULL, stdout=writer.stdin, stderr=writer.stdin,
                         cwd=launch["cwd"], start_new_session=True)
print(json.dumps([child.pid, writer.pid]))
"""


class ManagedProcess:
    """A process that outlives the command that starts it; its record is the file `{folder}/{name}.json`."""

    def __init__(self, folder: Path, name: str):
        self.name = name
        self.log = folder / f"{name}.log"
        self._record = folder / f"{name}.json"

    def find(self) -> psutil.Process | None:
        """The running process; None if it has ended, even if another process has its pid now."""
        return self._find("pid", "created")

    def start(self, command: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Starts it in a session of its own, with its output appended to the log, whose size and rate are bounded.
        What it creates is for this user alone.

        Args:
            env: all its variables; it inherits none.
        """
        self._record.parent.mkdir(parents=True, exist_ok=True)
        # Through an intermediate process that exits at once: a service must not be our child, or whatever kills this
        # process's children (Ray does so with its driver's) would kill the service too.
        writer = [sys.executable, "-I", "-S", str(_LOG_WRITER), str(self.log)]
        launch = {"command": list(command), "cwd": str(cwd), "writer": writer}
        child = subprocess.run(
            [sys.executable, "-I", "-S", "-c", _DETACH, json.dumps(launch)],
            env=env,
            stdout=subprocess.PIPE,
            check=True,
        )
        pid, writer_pid = json.loads(child.stdout)
        self._write_record(pid, list(command), writer_pid)

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
            self._end_writer()
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
        self._end_writer()
        self.remove_record()
        return True

    def last_lines(self, count: int = 15) -> str:
        """The last lines of its log; of a process that has ended, the last that it wrote."""
        writer = self._find("writer_pid", "writer_created")
        if writer is not None and self.find() is None:
            wait_for_exit([writer], _WRITER_TIMEOUT_SECONDS)
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])

    def _find(self, pid_key: str, created_key: str) -> psutil.Process | None:
        try:
            record = json.loads(self._record.read_text())
            process = psutil.Process(record[pid_key])
            if abs(process.create_time() - record[created_key]) < 1.0 and is_alive(process):
                return process
        except (FileNotFoundError, ValueError, KeyError, psutil.NoSuchProcess):
            return None
        return None

    def _end_writer(self) -> None:
        """Waits until the log's writer has ended, which it does with the last process that writes to it."""
        writer = self._find("writer_pid", "writer_created")
        if writer is not None:
            wait_for_exit([writer], _WRITER_TIMEOUT_SECONDS)
            if is_alive(writer):  # a process that is not our descendant any more holds its pipe
                _signal(writer, signal.SIGKILL)
                wait_for_exit([writer], _WRITER_TIMEOUT_SECONDS)

    def _write_record(self, pid: int, command: list[str], writer_pid: int | None = None) -> None:
        record: dict[str, object] = {"pid": pid, "created": psutil.Process(pid).create_time(), "command": command}
        if writer_pid is not None:
            record |= {"writer_pid": writer_pid, "writer_created": psutil.Process(writer_pid).create_time()}
        self._record.write_text(json.dumps(record))


def _signal(process: psutil.Process, number: int) -> None:
    try:
        process.send_signal(number)
    except psutil.NoSuchProcess:
        return
