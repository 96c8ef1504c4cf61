"""Which long tests belong to a change: those of the folders that it touches, as many as fit into a time limit."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath

from infra.check.budget import Budget
from infra.settings import REPOSITORY

UNKNOWN_SECONDS = 60.0
"""Estimate for a file of long tests that is not in `tests/budget.toml`."""
NOTHING_COLLECTED = 5
"""pytest's exit code if no test has the mark."""
CROSS_CUTTING = {
    "tests/faults": ("stages",),
    "tests/end_to_end": ("flows", "serving", "stages", "infra"),
}
"""Folders of tests of several packages at once, with the packages to whose changes they belong."""


def choose(revision: str, seconds: float, loop_seconds: float) -> list[str]:
    """Files of long tests to run for the changes since a revision; prints which were chosen and which omitted.

    Args:
        revision: empty: the merge base with the main branch; on the main branch, the state a day before its newest
            commit.
        seconds: limit for all of them at the reference speed; scaled on a slower machine.
    """
    budget = Budget.load()
    since = revision or _base()
    changed = _git("diff", "--name-only", since, "HEAD").splitlines()
    scale = budget.scale(loop_seconds)
    estimates = {file: budget.full.get(file, UNKNOWN_SECONDS) * scale for file in long_tests()}
    left, chosen, omitted = seconds * scale, [], []
    for file in order(estimates, changed):
        if estimates[file] <= left:
            left -= estimates[file]
            chosen.append(file)
        else:
            omitted.append(file)
    print(f"long tests for {len(changed)} files changed since {since[:12]}: {', '.join(chosen) or 'none'}")
    if omitted:
        print(f"omitted, because they exceed {seconds / 60:.0f} minutes: {', '.join(omitted)}", flush=True)
    return chosen


def order(estimates: Mapping[str, float], changed: list[str]) -> list[str]:
    """The files of long tests that belong to a change: the nearest first, and among these the fastest.

    Args:
        estimates: seconds by file.
        changed: paths of the changed files.
    """
    folders = {folder for path in changed if (folder := test_folder(path))}
    packages = {PurePosixPath(path).parts[0] for path in changed}
    near, far = [], []
    for file in sorted(estimates, key=lambda file: (estimates[file], file)):
        folder = str(PurePosixPath(file).parent)
        if folder in folders:
            near.append(file)
        elif packages.intersection(CROSS_CUTTING.get(folder, ())):
            far.append(file)
    return near + far


def test_folder(path: str) -> str:
    """The folder of tests that mirrors a changed file's; empty if there is none."""
    parts = PurePosixPath(path).parts[:-1]
    if not parts or parts[0] not in ("flows", "serving", "stages", "models", "infra", "benchmarks", "tests"):
        return ""
    return "/".join(parts if parts[0] == "tests" else ("tests", *parts))


def long_tests() -> list[str]:
    """The files with tests marked `full`, from pytest's collection, which lists `file: count`."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header", "-m", "full"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode not in (0, NOTHING_COLLECTED):
        raise RuntimeError(f"the tests cannot be collected:\n{done.stdout}{done.stderr}")
    return [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("tests/")]


def _base() -> str:
    """The merge base with the main branch; on the main branch, the last commit a day before its newest."""
    head = _git("rev-parse", "HEAD")
    for main in ("origin/HEAD", "origin/main"):
        base = _git("merge-base", main, "HEAD", check=False)
        if base and base != head:
            return base
    day_before = int(_git("show", "-s", "--format=%ct", "HEAD")) - 24 * 3600
    return _git("rev-list", "-1", f"--before={day_before}", "HEAD") or _git("rev-list", "--max-parents=0", "HEAD")


def _git(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=check)
    return done.stdout.strip() if done.returncode == 0 else ""
