"""Requests to an installation's Prefect server, by its own HTTP interface."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.end_to_end.house import BIN, House
from tests.support import alive

STARTED = {"flow_runs": {"start_time": {"is_null_": False}}}
"""Not the runs that the weekly schedule has waiting."""
CUT = re.compile(r"Stopped\s+watching\s+flow\s+run\s+(\S+)\s+before")
LONG = ["sample.megabytes=900"]
"""Settings of a run with minutes of work in the flow's own process; every test ends it."""
TIMEOUT_SECONDS = 300.0
"""Seconds until a test gives up waiting; nothing is asserted about how long it takes."""


class Prefect:
    """One server's interface; answers are JSON."""

    def __init__(self, house: House):
        self.url = f"http://127.0.0.1:{house.env['HEADWATER_PREFECT_PORT']}"
        self.auth = house.prefect_auth
        user, _, password = self.auth.partition(":")
        self._http = httpx.Client(
            base_url=f"{self.url}/api", timeout=TIMEOUT_SECONDS, trust_env=False, auth=(user, password)
        )

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """The response's content; None without one. SQLite is busy at times (503): retried, as clients do."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (answer := self._http.request(method, path, json=body)).status_code == 503:
            assert time.monotonic() < deadline, answer.text
            time.sleep(0.5)
        return answer.raise_for_status().json() if answer.content else None

    def get(self, path: str) -> Any:
        return self.ask("GET", path)

    def post(self, path: str, body: Any) -> Any:
        return self.ask("POST", path, body)

    @property
    def deployment(self) -> dict[str, Any]:
        """The deployment `pretrain/biomed`."""
        return self.get("/deployments/name/pretrain/biomed")

    def run_deployment(self, overrides: Sequence[str]) -> str:
        """Creates a run of the deployment, as `prefect deployment run` does; returns its id."""
        body = {"parameters": {"overrides": list(overrides)}}
        return self.post(f"/deployments/{self.deployment['id']}/create_flow_run", body)["id"]

    def run(self, run: str) -> dict[str, Any]:
        return self.get(f"/flow_runs/{run}")

    def last_started(self) -> dict[str, Any]:
        """The newest run that has begun."""
        return self.post("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1, **STARTED})[0]

    def wait(self, run: str, *states: str) -> dict[str, Any]:
        """The run, once its state has one of these names; fails when it ended with another."""
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while (found := self.run(run))["state"]["name"] not in states:
            ended = found["state"]["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
            assert not ended, f"{found['name']} ended: {found['state']['name']}: {found['state']['message']}"
            assert time.monotonic() < deadline, f"{found['name']} is still {found['state']['name']}, not {states}"
            time.sleep(0.3)
        return found

    def artifacts(self, run: str) -> dict[str, Any]:
        """The run's artifacts: their data by key."""
        found = self.post("/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {item["key"]: item["data"] for item in found}

    def task_runs(self, run: str) -> list[dict[str, Any]]:
        return self.post("/task_runs/filter", {"flow_runs": {"id": {"any_": [run]}}})

    def end_unfinished(self) -> None:
        """Ends what a failed test left running, so that the next one can start."""
        states = {"state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}}}
        for run in self.post("/flow_runs/filter", {"flow_runs": states}):
            self.post(f"/flow_runs/{run['id']}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
            if run["infrastructure_pid"]:
                with contextlib.suppress(psutil.NoSuchProcess):
                    for process in family(run):
                        process.kill()


def deployment_run(house: House, tmp_path: Path, *parameters: str) -> tuple[int, str]:
    """`prefect deployment run` in a directory: its exit status and output, watched to the end.

    A busy server may cut Prefect's stream (Prefect prints that, and the run continues): then `flow-run watch` follows
    it, as the README describes.
    """
    command = [str(BIN / "prefect"), "deployment", "run", "pretrain/biomed", "--watch"]
    for parameter in parameters:
        command += ["--param", parameter]
    result = house.command(command, check=False, cwd=tmp_path)
    output = result.stdout + result.stderr
    for _ in range(10):
        if not (cut := CUT.search(result.stdout + result.stderr)):
            break
        result = house.command([str(BIN / "prefect"), "flow-run", "watch", cut[1]], check=False, cwd=tmp_path)
        output += result.stdout + result.stderr
    return result.returncode, output


@dataclass(frozen=True)
class WatchedRun:
    """A run that `prefect deployment run --watch` started and watched."""

    id: str
    code: int
    output: str


def family(run: dict[str, Any]) -> list[psutil.Process]:
    """The process that a worker started for a run, and all its descendants."""
    process = psutil.Process(int(str(run["infrastructure_pid"]).rpartition(":")[2]))
    return [process, *process.children(recursive=True)]


def kill(processes: Sequence[psutil.Process]) -> None:
    """SIGKILL to those that are still alive."""
    for process in processes:
        if process.is_running():
            process.kill()


def wait_gone(processes: Sequence[psutil.Process]) -> None:
    """Waits until none of these processes is alive."""
    _, left = psutil.wait_procs(alive(processes), timeout=TIMEOUT_SECONDS)
    assert not alive(left), left
