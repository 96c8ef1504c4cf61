"""An installation of its own (real Prefect, Ray, MLflow, vLLM): its commands, addresses and processes."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import psutil
from typer.testing import CliRunner

from flows.cli.main import app
from tests.support import INSTALLATION, installation

BIN = Path(sys.executable).parent
SHORT = {
    "sample.megabytes": "1",
    "tokens.vocab_size": "2048",
    "training.model.size": "1m",
    "training.steps": "40",
    "training.data.global_batch_size": "8",
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
    """Standard error of the first command."""

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

    def ask(self, *arguments: str) -> str:
        """Output of a `headwater` command that only reads; it runs in this process, without a start of Python."""
        with patch.dict(os.environ, self.env, clear=True):  # the command sets more of it
            result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    @property
    def gateway(self) -> str:
        return f"http://127.0.0.1:{self.env['HEADWATER_GATEWAY_PORT']}"

    @property
    def key(self) -> str:
        return (self.folder / "home" / "api-key").read_text().strip()

    @property
    def prefect_auth(self) -> str:
        """`headwater:PASSWORD` of the Prefect server."""
        return (self.folder / "home" / "credentials" / "prefect").read_text().strip()

    @property
    def mlflow_url(self) -> str:
        """Address of the MLflow server with the credentials of its administrator."""
        password = (self.folder / "home" / "credentials" / "mlflow").read_text().strip()
        return f"http://headwater:{password}@127.0.0.1:{self.env['HEADWATER_MLFLOW_PORT']}"

    @property
    def key_header(self) -> dict[str, str]:
        """The header that authorizes a request to the gateway."""
        return {"Authorization": f"Bearer {self.key}"}


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


def own_environment(folder: Path) -> dict[str, str]:
    """This process's environment with an installation below a folder instead of any that it names."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(INSTALLATION)}
    return env | installation(folder)
