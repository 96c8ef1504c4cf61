"""Everything that must hold before a change lands: lint, format, import direction, types, tests.

    python -m infra.check                     make test: all but the tests that are marked `full`
    python -m infra.check --full              make test-full: every test
    python -m infra.check --change [REVISION] the `full` tests of what changed since then, as CI runs them
    python -m infra.check --coverage FOLDER   make test's tests, measured: branches by folder; takes twice as long

Arguments behind `--` go to pytest.
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

import psutil

from infra.check import budget, change, coverage, leftovers, static
from infra.check.record import FILE_VARIABLE
from infra.settings import REPOSITORY

MEMORY_A_WORKER = 4 << 30
"""Bytes that a process of tests and what it starts hold at most times."""
MOST_WORKERS = 6
LEFTOVER_SECONDS = 15.0
"""How long what tests started may take to end behind them."""
INTERRUPT_SECONDS = 60.0
"""How long tests may take to end after Ctrl-C."""
INTERRUPTED = 130


def main() -> int:
    """Runs what was asked for; prints verdicts and what the tests took; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--no-tests", action="store_true", help="no tests, but that all can be collected")
    which.add_argument("--full", action="store_true", help="also the tests marked `full`")
    which.add_argument("--change", nargs="?", const="", metavar="REVISION", help="only `full` tests, of a change")
    which.add_argument("--coverage", type=Path, metavar="FOLDER", help="measure branches; the data go there")
    parser.add_argument("--minutes", type=float, default=8.0, help="of `full` tests that --change may choose")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    options = parser.parse_args()
    if options.no_tests:
        return 1 if static.run_checks(collect=True) else 0
    gflops = _gflops()  # before anything else keeps the processors busy
    if options.change is not None:
        chosen = change.choose(options.change, options.minutes * 60, gflops)
        return run_tests(gflops, ["-m", "full", *chosen, *options.pytest]) if chosen else 0
    if options.coverage:
        folder = options.coverage.resolve()
        with coverage.measured(folder):
            code = run_tests(gflops, options.pytest, folder / "seconds.json")
        print(*coverage.by_folder(folder), sep="\n")
        return code
    failed = static.run_checks(collect=False)
    code = run_tests(gflops, [*(["-m", ""] if options.full else []), *options.pytest])
    if failed:
        print(f"failed before the tests: {', '.join(failed)}", flush=True)
    return code or (1 if failed else 0)


def run_tests(gflops: float, arguments: list[str], keep: Path | None = None) -> int:
    """Runs pytest, several tests at a time, and prints what they took beside the budget; returns pytest's exit code.

    Args:
        keep: a file for what each test took, as JSON.
    """
    workers = min(_cores() + 1, psutil.virtual_memory().available // MEMORY_A_WORKER, MOST_WORKERS)
    side_by_side = ["-n", str(workers), "--no-loadscope-reorder"] if workers > 1 else []
    with tempfile.TemporaryDirectory(prefix="headwater-check-") as folder:
        file, run = keep or Path(folder) / "seconds.json", str(os.getpid())
        command = [sys.executable, "-m", "pytest", "-p", "infra.check.record", *side_by_side, *arguments]
        env = os.environ | {FILE_VARIABLE: str(file), leftovers.VARIABLE: run}
        env.pop("PYTHONDONTWRITEBYTECODE", None)  # hundreds of processes would compile the same files
        began = time.monotonic()
        with subprocess.Popen(command, cwd=REPOSITORY, env=env) as tests:
            try:
                code = tests.wait()
            except KeyboardInterrupt:  # it has heard it too, and ends what its fixtures started
                with contextlib.suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
                    tests.wait(INTERRUPT_SECONDS)
                tests.kill()
                code = INTERRUPTED
        wall = time.monotonic() - began
        for line in leftovers.end(run, 0 if code == INTERRUPTED else LEFTOVER_SECONDS):
            print(f"left running by the tests, ended now: {line}", flush=True)
        if file.exists():
            lines = budget.report(budget.Budget.load(), gflops, wall, json.loads(file.read_text()))
            print(*lines, sep="\n", flush=True)
    return code


def _gflops() -> float:
    """This machine's rate in the number format that training takes here."""
    from stages.training.runtime.precision import machine_rate

    number_format, rate = machine_rate()
    print(f"machine: {rate / 1e9:.0f} GFLOP/s ({number_format} 2048^3 product)", flush=True)
    return rate / 1e9


def _cores() -> int:
    return len(os.sched_getaffinity(0))


if __name__ == "__main__":
    sys.exit(main())
