"""The checks that a change has to pass: lint, format, import direction, types, tests.

    python -m infra.check                     make test: every test that is not marked `full`
    python -m infra.check --full              make test-full: every test
    python -m infra.check --change [REVISION] the `full` tests that belong to what changed since then, as in CI
    python -m infra.check --coverage FOLDER   make test's tests with branch coverage by folder; takes twice as long

Arguments after `--` are passed to pytest.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from infra.check import budget, change, coverage, leftovers, speed, static
from infra.check.record import FILE_VARIABLE
from infra.settings import REPOSITORY
from stages.memory import available_memory

WORKER_MEMORY_BYTES = 4 << 30
"""Typical memory of a process of tests, with all that it starts."""
MAX_WORKERS = 6
LEFTOVER_TIMEOUT_SECONDS = 15.0
"""For processes that tests have started to end after them."""
INTERRUPT_TIMEOUT_SECONDS = 60.0
"""For the tests to end after Ctrl-C."""
INTERRUPTED = 130


def main() -> int:
    """Runs the checks; prints the results and the duration of the tests; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-tests", action="store_true", help="run no tests, only check that all can be collected")
    which.add_argument("--full", action="store_true", help="also the tests marked `full`")
    which.add_argument("--change", nargs="?", const="", metavar="REVISION", help="only the `full` tests of a change")
    which.add_argument("--coverage", type=Path, metavar="FOLDER", help="branch coverage, with its data in FOLDER")
    parser.add_argument("--minutes", type=float, default=8.0, help="limit for the `full` tests that --change chooses")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    options = parser.parse_args()
    if options.no_tests:
        return 1 if static.run_checks(collect=True) else 0
    loop_seconds = _speed()  # before anything else uses the cores
    if options.change is not None:
        chosen = change.choose(options.change, options.minutes * 60, loop_seconds)
        return run_tests(loop_seconds, ["-m", "full", *chosen, *options.pytest]) if chosen else 0
    if options.coverage:
        folder = options.coverage.resolve()
        with coverage.measure(folder):
            code = run_tests(loop_seconds, options.pytest, folder / "seconds.json")
        print(*coverage.report_by_folder(folder), sep="\n")
        return code
    failed = static.run_checks(collect=False)
    code = run_tests(loop_seconds, [*(["-m", ""] if options.full else []), *options.pytest])
    if failed:
        print(f"failed before the tests: {', '.join(failed)}", flush=True)
    return code or (1 if failed else 0)


def run_tests(loop_seconds: float, arguments: list[str], output: Path | None = None) -> int:
    """Runs pytest in several processes, and prints the durations beside the budget; returns pytest's exit code.

    Args:
        output: JSON file for the duration of each test; None: not kept.
    """
    workers = min(_cores() + 1, available_memory() // WORKER_MEMORY_BYTES, MAX_WORKERS)
    parallel = ["-n", str(workers), "--no-loadscope-reorder"] if workers > 1 else []
    with tempfile.TemporaryDirectory(prefix="headwater-check-") as folder:
        file, run = output or Path(folder) / "seconds.json", str(os.getpid())
        command = [sys.executable, "-m", "pytest", "-p", "infra.check.record", *parallel, *arguments]
        env = os.environ | {FILE_VARIABLE: str(file), leftovers.VARIABLE: run}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # else hundreds of processes compile the same files
        began = time.monotonic()
        with subprocess.Popen(command, cwd=REPOSITORY, env=env) as tests:
            try:
                code = tests.wait()
            except KeyboardInterrupt:  # pytest gets it too, and its fixtures end what they have started
                with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                    tests.wait(INTERRUPT_TIMEOUT_SECONDS)
                tests.kill()
                code = INTERRUPTED
        wall = time.monotonic() - began
        for line in leftovers.kill_leftovers(run, 0 if code == INTERRUPTED else LEFTOVER_TIMEOUT_SECONDS):
            print(f"left running by the tests, killed now: {line}", flush=True)
        if file.exists():
            lines = budget.report(budget.Budget.load(), loop_seconds, wall, json.loads(file.read_text()))
            print(*lines, sep="\n", flush=True)
    return code


def _speed() -> float:
    """Measures the machine and prints it: the speed of Python, which the budget is scaled by, and that of training."""
    from stages.training.runtime.precision import machine_rate

    loop_seconds = speed.loop_seconds()
    number_format, rate = machine_rate()
    print(
        f"machine: a million turns of a loop in Python take {loop_seconds:.3f} s, "
        f"{number_format} 2048^3 product at {rate / 1e9:.0f} GFLOP/s",
        flush=True,
    )
    return loop_seconds


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main())
