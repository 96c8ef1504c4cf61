"""A measured job in a process of its own: imports and warm-up first, then `READY`, then a wait for the start signal.

So neither memory nor imports of one job touch another's figures, and two jobs can be started at the same moment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE = 10
"""Seconds that a process has to end by itself."""
SAMPLED_EVERY = 0.02
"""Seconds between two looks at the memory of a job's processes."""
Work = Callable[[], dict[str, Any]]


class NotMeasured(Exception):
    """A job that could not be run here, and why."""


class Child:
    """A job that is ready to go: `{script} {job} {options as JSON} {file for the result}`."""

    def __init__(
        self,
        python: Path,
        script: Path,
        job: str,
        options: Mapping[str, Any],
        environment: Mapping[str, str] | None = None,
    ):
        self.job = job
        self._folder = tempfile.TemporaryDirectory(prefix="headwater-job-")
        self._result = Path(self._folder.name) / "result.json"
        self._errors = (Path(self._folder.name) / "errors.txt").open("w+")
        self._process = subprocess.Popen(
            [str(python), str(script), job, json.dumps(options, default=str), str(self._result)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=self._folder.name,
            env=None if environment is None else dict(environment),
        )

    def wait_until_ready(self) -> Child:
        """Returns when imports and warm-up are done.

        Raises:
            NotMeasured: a requirement is missing, or it failed.
        """
        assert self._process.stdout
        for line in self._process.stdout:
            if line == "READY\n":
                if self._result.exists():  # it cannot be run here, and wrote the reason
                    self.result()
                return self
        self._fail()
        return self

    def go(self) -> None:
        """Starts the measured work."""
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.close()

    def round(self) -> dict[str, Any]:
        """Does the work once more and waits for its result; the process stays for another round."""
        self.begin_round()
        return self.end_round()

    def begin_round(self) -> None:
        """Starts the work once more and returns at once: several jobs can run together."""
        assert self._process.stdin
        self._result.unlink(missing_ok=True)
        with suppress(BrokenPipeError):  # it has ended: `end_round` finds out
            self._process.stdin.write("go\n")
            self._process.stdin.flush()

    def end_round(self) -> dict[str, Any]:
        """Waits for the result of the work that was begun."""
        assert self._process.stdout
        if self._process.poll() is not None:
            return self.result()
        for line in self._process.stdout:
            if line == "DONE\n":
                return dict(json.loads(self._result.read_text()))
        self._fail()
        return {}

    def result(self, memory: bool = False) -> dict[str, Any]:
        """Waits for the end; with `memory`, peak bytes of all its processes as `peak_pss`, `peak_anonymous`."""
        assert self._process.stdout
        peak = Peak(self._process.pid) if memory else None
        # The job's remaining output is read and dropped, so that it never waits for a full pipe.
        self._process.stdout.read()
        code = self._process.wait()
        found = peak.stop() if peak else {}
        if code:
            self._fail()
        result = json.loads(self._result.read_text())
        self.close()
        if "not_measured" in result:
            raise NotMeasured(result["not_measured"])
        return result | found

    def end(self) -> None:
        """Lets a process that did rounds end by itself, so that it removes its files and shared memory."""
        assert self._process.stdin and self._process.stdout
        if not self._process.stdin.closed:
            with suppress(BrokenPipeError):
                self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE)
        self.close()

    def close(self) -> None:
        """Ends the process if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        self._errors.close()
        self._folder.cleanup()

    def _fail(self) -> None:
        code = self._process.wait()
        self._errors.seek(0)
        lines = [line for line in self._errors.read().splitlines() if line.strip()]
        self.close()
        raise NotMeasured(f"{self.job} ended with {code}: {' | '.join(lines[-3:])[-400:]}")


class Peak:
    """Highest sum over a process and its descendants, so shared pages count once: proportional set size, and the
    anonymous part of it, which unlike mapped files cannot be given back."""

    def __init__(self, pid: int):
        import psutil

        self._no_process = psutil.NoSuchProcess
        self._process = psutil.Process(pid)
        self._highest = {"peak_pss": 0, "peak_anonymous": 0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def stop(self) -> dict[str, int]:
        """Ends the watch; bytes."""
        self._stop.set()
        self._thread.join()
        return self._highest

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLED_EVERY):
            total = {"peak_pss": 0, "peak_anonymous": 0}
            try:
                tree = [self._process, *self._process.children(recursive=True)]
            except self._no_process:
                return
            for process in tree:
                try:
                    lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
                except OSError:  # It has ended since the tree was listed.
                    continue
                sizes = {name: int(value.split()[0]) << 10 for name, value in (line.split(":") for line in lines)}
                total["peak_pss"] += sizes.get("Pss", 0)
                total["peak_anonymous"] += sizes.get("Pss_Anon", sizes.get("Anonymous", 0))
            for name, value in total.items():
                self._highest[name] = max(self._highest[name], value)


def serve(jobs: Mapping[str, Callable[..., Work]]) -> None:
    """The child's side: prepares the job that the command line names, prints READY, waits, works, writes the result.

    A job is a function of its options that imports, loads and warms up, and returns the work. Its result has
    `seconds`, of the work alone, unless the work measures itself. The work is done at every further word to go.
    """
    job, options, path = sys.argv[1:]
    try:
        work = jobs[job](**json.loads(options))
    except ModuleNotFoundError as error:
        Path(path).write_text(json.dumps({"not_measured": str(error)}))
        print("READY", flush=True)
        return
    print("READY", flush=True)
    rounds = 0
    while sys.stdin.readline() == "go\n":
        began = time.perf_counter()
        result = work()
        seconds = time.perf_counter() - began
        Path(path).write_text(json.dumps({"seconds": seconds} | result))
        print("DONE", flush=True)
        rounds += 1
    if not rounds:
        raise SystemExit("the benchmark that started this job is gone")


def run_job(python: Path, script: Path, job: str, options: Mapping[str, Any], memory: bool = False) -> dict[str, Any]:
    """Runs one job from beginning to end.

    Raises:
        NotMeasured: it could not be run, with the reason.
    """
    child = Child(python, script, job, options)
    try:
        child.wait_until_ready().go()
        return child.result(memory)
    except BrokenPipeError:
        return child.result()
    finally:
        child.close()
