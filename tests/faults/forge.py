"""Real stages on tiny inputs in processes of their own, which end, or wait, at an exact moment.

A moment is a call of a function in the program: of `EventLog.emit` with an event, of `Store.put_file` with a name.
So a kill hits the same place every time, and no test sleeps for a guessed time.

`python -m tests.faults.forge` imports the stages and loads their compiled kernels once, and forks a process for each
run asked for, which saves the seconds that this takes. It reads requests from its input, a line of JSON each, and
answers on its output. A run is a process in a session of its own, so that its children are found after its end.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.support import REPOSITORY

KILL, KILL_GROUP, HOLD = "kill", "kill_group", "hold"
"""SIGKILL to the process alone; to all its children too; a pause until `Run.go`."""


@dataclass(frozen=True)
class Moment:
    """The `nth` call of a function that has every one of `words` in its arguments, as `repr` shows them."""

    call: str
    """`module:qualified.name`, as the caller looks it up."""
    words: tuple[str, ...] = ()
    nth: int = 1
    after: bool = False
    """Behind the call instead of before it."""
    act: str = KILL

    def __str__(self) -> str:
        place = "after" if self.after else "before"
        return f"{self.act} {place} {self.call.rpartition(':')[2]}({' '.join(self.words)}) #{self.nth}"


def event(*words: str, nth: int = 1, act: str = KILL) -> Moment:
    """Behind an event."""
    return Moment("stages.store.events:EventLog.emit", words, nth, after=True, act=act)


def store(method: str, *words: str, nth: int = 1, after: bool = False, act: str = KILL) -> Moment:
    """Around a call of the store."""
    return Moment(f"stages.store.store:Store.{method}", words, nth, after, act)


@dataclass
class Run:
    """A process that runs one stage."""

    pid: int
    folder: Path
    forge: Forge
    status: int | None = None

    @property
    def log(self) -> str:
        """What it printed."""
        return (self.folder / "log.txt").read_text()

    @property
    def result(self) -> dict[str, Any]:
        """`digest` and `folder`, or `error` (name of the class) and `message`."""
        path = self.folder / "result.json"
        assert path.exists(), f"no result, status {self.status}: {self.log}"
        return json.loads(path.read_text())

    def reached(self) -> bool:
        """True when it waits at its moment; False when it ended without reaching it."""
        while not (self.folder / "reached").exists():
            if self.ended():
                return (self.folder / "reached").exists()
            time.sleep(0.01)
        return True

    def ended(self) -> bool:
        """True when it ended; a zombie has."""
        return self.status is not None or _state(self.pid) in ("", "Z")

    def go(self) -> None:
        """Ends its wait."""
        (self.folder / "go").touch()

    def wait(self) -> int:
        """Its exit status, negative for a signal."""
        if self.status is None:
            self.status = int(self.forge.ask(wait=self.pid))
        return self.status

    def survivors(self) -> list[int]:
        """Processes of its session that are alive."""
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if _session(pid) == self.pid]

    def all_ended(self, patience: float = 60.0) -> bool:
        """Waits until nothing that it started is alive; False when something is after `patience` seconds."""
        until = time.monotonic() + patience
        while self.survivors():
            if time.monotonic() > until:
                return False
            time.sleep(0.02)
        return True


class Forge:
    """The process that forks runs. Each has this process's environment as it is at the time."""

    def __init__(self, folder: Path, inputs: Path):
        self.folder, self.inputs, self.number = folder, inputs, 0
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.forge"],
            cwd=REPOSITORY,
            # OpenMP's threads sleep while they wait: on few or busy cores, spinning would take most of a training run.
            env={**os.environ, "OMP_WAIT_POLICY": "passive"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, job: str, url: str, moment: Moment | None = None, **options: Any) -> Run:
        """Starts a job (a name in `tests.faults.jobs`) on a store.

        Args:
            options: handed to the job.
        """
        self.number += 1
        folder = self.folder / f"{self.number:03}"
        folder.mkdir(parents=True)
        order = _Order(dict(os.environ), job, url, str(self.inputs), str(folder), moment and asdict(moment), options)
        return Run(int(self.ask(run=asdict(order))), folder, self)

    def run(self, job: str, url: str, moment: Moment | None = None, **options: Any) -> Run:
        """Starts a job and waits for its end."""
        run = self.start(job, url, moment, **options)
        run.wait()
        return run

    def ask(self, **request: Any) -> Any:
        """One request and its answer."""
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the forge ended with {self._process.wait()}"
        return json.loads(answer)

    def end(self) -> None:
        """Ends it; runs that are still alive are killed."""
        self._process.communicate()


@dataclass
class _Order:
    environment: dict[str, str]
    job: str
    url: str
    inputs: str
    folder: str
    moment: dict[str, Any] | None = None
    options: dict[str, Any] = field(default_factory=dict)


def _state(pid: int) -> str:
    """`R`, `S`, `Z`, ... as in /proc; empty for none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _session(pid: int) -> int:
    """The session of a process that lives; 0 for one that does not."""
    try:
        state, _, _, session, *_ = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return 0 if state == "Z" else int(session)


def _serve() -> None:
    from tests.faults import jobs

    jobs.preload()
    gc.freeze()  # or each run's garbage collector would copy the pages that it shares with this process
    alive: set[int] = set()
    answers = os.fdopen(os.dup(1), "w")
    for line in sys.stdin:
        request = json.loads(line)
        if "wait" in request:
            _, status = os.waitpid(request["wait"], 0)
            alive.discard(request["wait"])
            answer = os.waitstatus_to_exitcode(status)
        else:
            answer = os.fork()
            if not answer:
                _run_job(_Order(**request["run"]), jobs.JOBS)
            alive.add(answer)
        print(json.dumps(answer), file=answers, flush=True)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)


def _run_job(order: _Order, jobs: dict[str, Callable[..., Any]]) -> None:
    """Runs a job and exits the process without freeing its memory."""
    folder = Path(order.folder)
    os.setsid()
    log = os.open(folder / "log.txt", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.environ.clear()
    os.environ.update(order.environment)
    tempfile.tempdir = None
    if order.moment:
        _arm(Moment(**order.moment), folder)
    code = 0
    try:
        result = jobs[order.job](order.url, Path(order.inputs), **order.options)
    except BaseException as error:
        from stages.store import HeadwaterError

        if not isinstance(error, HeadwaterError):
            traceback.print_exc()
        result, code = {"error": type(error).__name__, "message": str(error)}, 1
    (folder / "result.json").write_text(json.dumps(result))
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _arm(moment: Moment, folder: Path) -> None:
    """Replaces the function by one that kills or holds the process at the moment."""
    module, _, name = moment.call.partition(":")
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real, left = getattr(owner, last), [moment.nth]

    def armed(*args: Any, **kwargs: Any) -> Any:
        shown = repr((args[1:] if path else args, kwargs))
        hit = all(word in shown for word in moment.words)
        left[0] -= hit
        hit = hit and left[0] == 0
        if hit and not moment.after:
            _strike(moment.act, folder)
        result = real(*args, **kwargs)
        if hit and moment.after:
            _strike(moment.act, folder)
        return result

    setattr(owner, last, armed)


def _strike(act: str, folder: Path) -> None:
    if act == KILL:
        os.kill(os.getpid(), signal.SIGKILL)
    if act == KILL_GROUP:
        os.killpg(0, signal.SIGKILL)
    parent = os.getppid()
    (folder / "reached").touch()
    while not (folder / "go").exists():
        if os.getppid() != parent:  # the forge is gone
            os._exit(1)
        time.sleep(0.01)


if __name__ == "__main__":
    _serve()
