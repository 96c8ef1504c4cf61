"""Which long tests belong to a change: those of the folders that it touches, as many as fit into some minutes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping
from pathlib import PurePosixPath

from infra.check.budget import Budget
from infra.settings import REPOSITORY

UNKNOWN_SECONDS = 60.0
"""What a file of long tests counts that `tests/budget.toml` does not name."""
NOTHING_COLLECTED = 5
"""What pytest ends with where no test has the mark."""
TOGETHER = {
    "tests/faults": ("stages",),
    "tests/end_to_end": ("flows", "serving", "stages", "infra"),
}
"""Folders of tests that look at several parts at once, and whose changes they belong to."""


def choose(revision: str, seconds: float, gflops: float) -> list[str]:
    """Files of long tests to run for what changed since a revision; prints what was chosen and what was left out.

    Args:
        revision: empty: where this branch left the main one, or else what was there a day before its last commit.
        seconds: that they may take together at the usual speed; a slower machine may take more.
    """
    budget = Budget.load()
    since = revision or _base()
    changed = _git("diff", "--name-only", since, "HEAD").splitlines()
    scale = budget.scale(gflops)
    needed = {file: budget.full.get(file, UNKNOWN_SECONDS) * scale for file in long_tests()}
    left, chosen, over = seconds * scale, [], []
    for file in order(needed, changed):
        if needed[file] <= left:
            left -= needed[file]
            chosen.append(file)
        else:
            over.append(file)
    print(f"long tests of what {len(changed)} files changed since {since[:12]}: {', '.join(chosen) or 'none'}")
    if over:
        print(f"left out, since they do not fit into {seconds / 60:.0f} minutes: {', '.join(over)}", flush=True)
    return chosen


def order(needed: Mapping[str, float], changed: list[str]) -> list[str]:
    """Those files of long tests that belong to a change: the nearest first, and of these the quickest.

    Args:
        needed: seconds by file.
        changed: paths of the changed files.
    """
    folders = {folder for path in changed if (folder := folder_of_tests(path))}
    parts = {PurePosixPath(path).parts[0] for path in changed}
    near, apart = [], []
    for file in sorted(needed, key=lambda file: (needed[file], file)):
        folder = str(PurePosixPath(file).parent)
        if folder in folders:
            near.append(file)
        elif parts.intersection(TOGETHER.get(folder, ())):
            apart.append(file)
    return near + apart


def folder_of_tests(path: str) -> str:
    """The folder of tests that mirrors a changed file's; empty for files that have none."""
    parts = PurePosixPath(path).parts[:-1]
    if not parts or parts[0] not in ("flows", "serving", "stages", "models", "infra", "benchmarks", "tests"):
        return ""
    return "/".join(parts if parts[0] == "tests" else ("tests", *parts))


def long_tests() -> list[str]:
    """The files that have tests marked `full`, by pytest's own collection, which lists `file: count`."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "--no-header", "-m", "full"]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    if done.returncode not in (0, NOTHING_COLLECTED):
        raise RuntimeError(f"the tests cannot be collected:\n{done.stdout}{done.stderr}")
    return [line.partition(":")[0] for line in done.stdout.splitlines() if line.startswith("tests/")]


def _base() -> str:
    """Where this branch left the main one; on the main one itself, what was there a day before its last commit."""
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
