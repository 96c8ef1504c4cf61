"""Everything that must hold before a change lands: lint, format, import direction, types, tests (`make test`)."""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from infra.settings import REPOSITORY

PACKAGES = ("flows", "serving", "stages", "models", "infra")
CHECKS = {
    "lint": ["ruff", "check", "."],
    "format": ["ruff", "format", "--check", "."],
    "imports": ["lint-imports"],
    "types": ["mypy", *(argument for package in PACKAGES for argument in ("-p", package))],
}
COLLECTION = ["pytest", "--collect-only", "-q", "--no-header"]
"""Whether pytest can import every test, for those who run but a part: two modules of one name stop the whole."""


def main() -> int:
    """Runs the checks side by side, then the tests; prints each one's time; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-tests", action="store_true", help="no tests, but that all can be collected")
    parser.add_argument("pytest", nargs="*", help="arguments for pytest")
    options = parser.parse_args()
    began = time.monotonic()
    checks = CHECKS | ({"collection": COLLECTION} if options.no_tests else {})
    running = {name: _start(command) for name, command in checks.items()}
    failed = []
    for name, process in running.items():
        output, _ = process.communicate()
        passed = process.returncode == 0
        print(f"{name}: {'ok' if passed else 'FAILED'}", flush=True)
        if not passed:
            print(output, flush=True)
            failed.append(name)
    print(f"checks: {time.monotonic() - began:.0f} s", flush=True)
    if options.no_tests:
        return 1 if failed else 0
    tests = subprocess.run([sys.executable, "-m", "pytest", *options.pytest], cwd=REPOSITORY)
    if failed:
        print(f"failed before the tests: {', '.join(failed)}", flush=True)
    return tests.returncode or (1 if failed else 0)


def _start(command: list[str]) -> subprocess.Popen[str]:
    binary = str(REPOSITORY / ".venv" / "bin" / command[0])
    return subprocess.Popen(
        [binary, *command[1:]], cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


if __name__ == "__main__":
    sys.exit(main())
