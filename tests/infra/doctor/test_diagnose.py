"""The doctor: results, and the whole command on this machine. Its checks have tests of their own beside this file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.doctor.diagnose import diagnose
from infra.doctor.result import Check, PendingCheck, as_json, exit_code, render, run_checks
from tests.support import REPOSITORY, installation


def test_checks_run_in_parallel_and_none_delays_the_others() -> None:
    release, meet = threading.Event(), threading.Barrier(2, timeout=10)

    def both(name: str) -> list[Check]:
        meet.wait()  # passes only if both run at once
        return [Check(name, "ok", "")]

    def hang() -> list[Check]:
        release.wait(60)
        return []

    def broken() -> list[Check]:
        raise ValueError("not a number")

    def unreadable() -> list[Check]:
        raise PermissionError(13, "Permission denied", "/state/api-key")

    checks = run_checks(
        [
            PendingCheck("hangs", hang, 0.2, "pull the plug"),
            PendingCheck("first", lambda: both("first")),
            PendingCheck("second", lambda: both("second")),
            PendingCheck("broken", broken),
            PendingCheck("unreadable", unreadable),
        ]
    )
    release.set()
    assert [(c.name, c.state) for c in checks] == [
        ("hangs", "problem"), ("first", "ok"), ("second", "ok"), ("broken", "problem"),
        ("unreadable", "problem"),
    ]  # fmt: skip
    assert checks[0].remedy == "pull the plug" and "not a number" in checks[3].found and "report" in checks[3].remedy
    assert "/state/api-key" in checks[4].found and "report" not in checks[4].remedy


@pytest.mark.parametrize(
    ("states", "code", "strict"),
    [([], 0, 0), (["ok"], 0, 0), (["ok", "warning"], 0, 1), (["warning", "problem"], 1, 1)],
)
def test_exit_codes(states: list[str], code: int, strict: int) -> None:
    checks = [Check("x", state, "") for state in states]
    assert (exit_code(checks), exit_code(checks, strict=True)) == (code, strict)


@pytest.mark.parametrize("width", [60, 100, 140])
def test_the_table_fits_and_no_command_is_broken(width: int) -> None:
    command = "`rm -rf .venv-serve && make setup`"
    found = "words and more words " * 12
    text = render([Check("disk", "problem", found, f"do this: {command}"), Check("GPU", "ok", "none")], width, False)
    assert all(len(line) <= width for line in text.splitlines())
    assert " ".join(text.split()).count(" ".join(found.split())) == 1 and "1 problem, 1 ok" in text
    assert "\x1b" not in text and "\x1b[1;31m" in render([Check("disk", "problem", "")], width, True)
    assert render([Check("a", "problem", "x", "y")], width, False, symbols=False).isascii()


def test_json_counts_and_lists() -> None:
    value = as_json([Check("disk", "problem", "full", "free some"), Check("GPU", "ok", "none")])
    assert (value["ok"], value["warning"], value["problem"]) == (1, 0, 1)
    assert value["checks"][0] == {"name": "disk", "state": "problem", "found": "full", "remedy": "free some"}


def test_all_checks_with_no_service_running(own_installation: dict[str, str], tmp_path: Path) -> None:
    checks = {check.name: check for check in diagnose(own_installation)}
    for variable in ("PREFECT", "MLFLOW", "GATEWAY"):
        assert checks[f"port {own_installation[f'HEADWATER_{variable}_PORT']}"].state == "ok"
    names = ["Python", ".venv", ".venv-serve", "listeners", "leftovers", "store", "state folder", "API key", "tools"]
    assert {name: checks[name].state for name in names} == dict.fromkeys(names, "ok")
    assert all(bool(check.remedy) == (check.state != "ok") for check in checks.values())
    assert not (tmp_path / "home").exists(), "checks create nothing"


def test_the_command_reports_problems_and_exits_with_1(tmp_path: Path) -> None:
    env = {**os.environ, **installation(tmp_path), "HEADWATER_SERVE_PYTHON": str(tmp_path / "none" / "python")}
    headwater = str(REPOSITORY / ".venv" / "bin" / "headwater")
    done = subprocess.run([headwater, "doctor", "--json"], env=env, cwd=tmp_path, capture_output=True, text=True)
    states = {check["name"]: check["state"] for check in json.loads(done.stdout)["checks"]}
    assert done.returncode == 1 and states[".venv-serve"] == "problem" and states[".venv"] == "ok"
    env["HEADWATER_GATEWAY_PORT"] = "many"
    done = subprocess.run([headwater, "doctor"], env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "HEADWATER_GATEWAY_PORT: 'many'" in done.stdout and not done.stderr


def test_make_doctor_works_before_set_up(tmp_path: Path) -> None:
    """With the standard library only: Python runs without site packages, in a copy of the code without environments."""
    for name in ("infra", "stages"):
        shutil.copytree(REPOSITORY / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("Makefile", "pyproject.toml"):
        shutil.copy(REPOSITORY / name, tmp_path)
    bare = tmp_path / "bare"
    bare.write_text(f'#!/bin/sh\nexec {os.path.realpath(sys.executable)} -S "$@"\n')
    bare.chmod(0o755)
    env = {name: value for name, value in os.environ.items() if not name.startswith(("HEADWATER_", "PYTHON"))}
    # Its own ports: services may be running on the default ones.
    env |= {name: value for name, value in installation(tmp_path).items() if name.endswith("_PORT")}
    make = ["make", "-s", "doctor", f"PYTHON={bare}"]
    done = subprocess.run(make, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode != 0 and "Traceback" not in done.stdout + done.stderr
    assert ".venv/bin/python does not exist" in done.stdout and "`make setup`" in done.stdout
    assert "memory" in done.stdout and "free for gateway" in done.stdout
