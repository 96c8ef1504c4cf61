"""Static checks: lint, format, import direction, no pickle, types, and whether all tests can be collected."""

from __future__ import annotations

import subprocess
import time

from infra.settings import REPOSITORY

PACKAGES = ("flows", "serving", "stages", "models", "infra")
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "imports": ["lint-imports"],
    "no pickle": ["python", "-m", "infra.check.no_pickle"],
    "types": ["mypy", *(argument for package in PACKAGES for argument in ("-p", package))],
}
COLLECTION = {"collection": ["pytest", "--collect-only", "-q", "--no-header"]}
"""Whether pytest can import every test; for runs without tests."""


def run_checks(collect: bool) -> list[str]:
    """Runs the checks in parallel, prints their results, and returns the names of those that failed.

    Args:
        collect: also check that every test can be collected.
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
