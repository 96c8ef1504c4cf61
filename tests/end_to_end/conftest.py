"""One shortened run of the whole house (real Prefect, Ray, MLflow, vLLM) that many tests look at."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import REPOSITORY, installation

BIN = Path(sys.executable).parent
SHORT = {
    "sample.megabytes": "1",
    "tokens.vocabulary": "2048",
    "training.size": "1m",
    "training.steps": "40",
    "training.batch": "8",
    "evaluation.default_limit": "40",
    "gate.must_beat_baselines": "[]",
}
"""A run short enough for tests; it is too short to learn facts, so the gate asks for bits-per-byte alone."""


@dataclass
class House:
    """An installation of its own with one finished run."""

    env: dict[str, str]
    folder: Path
    summary: dict[str, Any]
    first_output: str
    """What the first command printed on standard error."""

    @property
    def overrides(self) -> list[str]:
        return [f"{key}={value}" for key, value in SHORT.items()]

    def headwater(
        self, *arguments: str, check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs the `headwater` command."""
        return self.command([str(BIN / "headwater"), *arguments], check=check, cwd=cwd)

    def command(
        self, command: list[str], check: bool = True, cwd: Path | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a command in this installation; a failure shows what it printed."""
        result = subprocess.run(command, env=self.env, cwd=cwd or self.folder, capture_output=True, text=True)
        if check and result.returncode:
            raise AssertionError(f"{command} ended with {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.env['HEADWATER_GATEWAY_PORT']}"

    @property
    def key(self) -> str:
        return (self.folder / "home" / "api-key").read_text().strip()


def processes_of(folder: Path) -> dict[int, str]:
    """Living processes that have this installation in their environment: command lines by pid."""
    found = {}
    for process in psutil.process_iter():
        try:
            if process.environ().get("HEADWATER_HOME") == str(folder / "home") and process.status() != "zombie":
                found[process.pid] = " ".join(process.cmdline())[:200]
        except psutil.Error:
            continue
    return found


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Runs `headwater run biomed`, shortened, and stops everything at the end; nothing may stay alive."""
    folder = tmp_path_factory.mktemp("house")
    env = {k: v for k, v in os.environ.items() if not k.startswith(("HEADWATER_", "PREFECT_", "MLFLOW_"))}
    env |= installation(folder)
    house = House(env, folder, {}, "")
    try:
        result = house.headwater("run", "biomed", "--json", *(f"--set={item}" for item in house.overrides))
        house.summary, house.first_output = json.loads(result.stdout), result.stderr
        yield house
    finally:
        house.command(["make", "stop"], cwd=REPOSITORY)
    deadline = time.monotonic() + 10
    while (left := processes_of(folder)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert left == {}, "alive after make stop"
