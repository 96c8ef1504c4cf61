"""Checks that run nothing of the project: lint, format, import direction, types, and whether tests can be collected."""

from __future__ import annotations

import subprocess
import time

from infra.settings import REPOSITORY

PACKAGES = ("flows", "serving", "stages", "models", "infra")
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "imports": ["lint-imports"],
    "types": ["mypy", *(argument for package in PACKAGES for argument in ("-p", package))],
}
COLLECTION = {"collection": ["pytest", "--collect-only", "-q", "--no-header"]}
"""Whether pytest can import every test, for those who run but a part."""


def run_checks(collect: bool) -> list[str]:
    """Runs the checks side by side, prints each one's verdict, and returns the names of those that failed.

    Args:
        collect: also see that every test can be collected.
    """
    began, failed = time.monotonic(), []
    running = {name: _start(command) for name, command in (CHECKS | (COLLECTION if collect else {})).items()}
    for name, process in running.items():
        output, _ = process.communicate()
        passed = process.returncode == 0
        print(f"{name}: {'ok' if passed else 'FAILED'}", flush=True)
        if not passed:
            print(output, flush=True)
            failed.append(name)
    print(f"checks: {time.monotonic() - began:.0f} s", flush=True)
    return failed


def _start(command: list[str]) -> subprocess.Popen[str]:
    binary = str(REPOSITORY / ".venv" / "bin" / command[0])
    return subprocess.Popen(
        [binary, *command[1:]], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
