"""Runs one command and ends all its descendants with it: `python supervise.py GRACE_SECONDS COMMAND...`.

A vLLM engine is a tree of processes, which must end with the gateway even when the gateway is killed. So the gateway
starts this small supervisor (standard library only) and holds the write end of its standard input:

- end of input (the gateway has ended, for whatever reason), or SIGTERM: the command gets SIGTERM, and after
  GRACE_SECONDS its whole tree gets SIGKILL;
- the command exits: the rest of its tree gets SIGKILL;
- lines on standard input are forwarded to the command.

On Linux the supervisor is a child subreaper: orphaned grandchildren become its children, even those in another process
group. And the command gets SIGKILL if the supervisor itself is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import selectors
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


def main() -> int:
    """Runs `argv[2:]` until it exits, standard input closes or a signal arrives; ends its tree in `argv[1]` seconds.

    Returns the command's exit code; 128 and the signal's number if a signal ended it.
    """
    grace_seconds, command = float(sys.argv[1]), sys.argv[2:]
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    if libc:
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)

    def die_with_supervisor() -> None:
        if libc:
            libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)

    # Every signal becomes a byte in this pipe, so that one `select` waits for input, signals and the child's exit.
    wake_read, wake_write = os.pipe()
    os.set_blocking(wake_write, False)
    signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
    asked_to_stop = []
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda number, frame: asked_to_stop.append(number))
    signal.signal(signal.SIGCHLD, lambda number, frame: None)

    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        start_new_session=True,
        preexec_fn=die_with_supervisor,
    )
    assert child.stdin is not None
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    selector.register(wake_read, selectors.EVENT_READ)
    while child.poll() is None and not asked_to_stop:
        for key, _ in selector.select():
            data = os.read(key.fd, 65536)
            if key.fd == 0 and not data:
                asked_to_stop.append(signal.SIGTERM)
            elif key.fd == 0:
                with contextlib.suppress(BrokenPipeError):  # it has just exited: the loop sees that next
                    child.stdin.write(data)
                    child.stdin.flush()
    if child.poll() is None:
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace_seconds)
    kill_tree(child)
    code = child.wait()
    return code if code >= 0 else 128 - code


def kill_tree(child: subprocess.Popen[bytes]) -> None:
    """Sends SIGKILL to the child's process group and to every descendant, until there is none."""
    for _ in range(100):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.pid, signal.SIGKILL)
        left = descendants(os.getpid())
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        child.poll()
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        if not left:
            return
        time.sleep(0.02)


def descendants(pid: int) -> list[int]:
    """Pids of all descendants (on Linux; elsewhere none, and only the process group is killed)."""
    found = []
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in task.read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


if __name__ == "__main__":
    sys.exit(main())
