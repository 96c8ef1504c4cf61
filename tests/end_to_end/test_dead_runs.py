"""Runs that are killed or cancelled: their final state, no process left, and the next run can start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import psutil
import pytest
from prefect import flow, runtime
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.cancel import confirm_cancel, interrupt_on_cancel
from flows.dead_runs import HEARTBEAT, automations, install_automations
from tests.end_to_end.house import BIN, House
from tests.end_to_end.prefect_client import LONG, TIMEOUT_SECONDS, Prefect, family, kill, wait_gone

RUNNING = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}


def _worker(house: House) -> psutil.Process:
    return psutil.Process(json.loads((house.folder / "home/services/prefect-worker.json").read_text())["pid"])


class Beats:
    """Runs without a process, whose heartbeats the test sends."""

    def __init__(self, prefect: Prefect):
        self.prefect = prefect
        self.flow = prefect.deployment["flow_id"]

    def start(self) -> str:
        body = {"flow_id": self.flow, "state": {"type": "RUNNING"}}
        run = self.prefect.post("/flow_runs/", body)["id"]
        self.beat(run)
        return run

    def beat(self, run: str) -> None:
        flow = {"prefect.resource.id": f"prefect.flow.{self.flow}", "prefect.resource.name": "pretrain"}
        event = {
            "id": str(uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": HEARTBEAT,
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "related": [{**flow, "prefect.resource.role": "flow"}],
        }
        self.prefect.post("/events", [event])

    def set(self, run: str, **state: str) -> None:
        self.prefect.post(f"/flow_runs/{run}/set_state", {"state": state})


@pytest.mark.full
def test_a_run_that_lost_its_process_and_its_worker_ends_as_crashed_and_frees_its_slot(
    house: House, prefect: Prefect
) -> None:
    killed = prefect.run_deployment(LONG)
    processes = family(prefect.wait(killed, "Running"))
    kill([_worker(house), *processes])
    wait_gone(processes)
    house.headwater("up")
    following = prefect.run_deployment(house.overrides)
    beats = Beats(prefect)
    alive, silent, done, rejected, cancelling = (beats.start() for _ in range(5))
    beats.set(done, type="COMPLETED")
    beats.set(rejected, type="COMPLETED", name="GateRejected")
    beats.set(cancelling, type="CANCELLING")
    beats.beat(done)  # the last one may arrive after the end
    deadline = time.monotonic() + TIMEOUT_SECONDS
    dead = (killed, silent, cancelling)
    while [prefect.run(run)["state"]["type"] for run in dead] != ["CRASHED", "CRASHED", "CANCELLED"]:
        assert time.monotonic() < deadline, [prefect.run(run)["state"] for run in dead]
        beats.beat(alive)
        time.sleep(5)
    assert "no heartbeat" in prefect.run(killed)["state"]["message"]
    assert prefect.run(alive)["state"]["type"] == "RUNNING", "a heartbeat is enough to be alive"
    assert prefect.run(done)["state"]["name"] == "Completed"
    assert prefect.run(rejected)["state"]["name"] == "GateRejected"
    prefect.wait(following, "Completed")
    prefect.ask("DELETE", f"/flow_runs/{alive}")


def test_a_run_in_a_terminal_that_is_cancelled_ends_too(house: House, prefect: Prefect) -> None:
    """It has no worker that would receive the cancel."""
    command = [str(BIN / "headwater"), "run", "biomed", *(f"--set={item}" for item in LONG)]
    log = house.folder / "cancelled.log"
    with log.open("w") as file:
        terminal = subprocess.Popen(command, env=house.env, cwd=house.folder, stdout=file, stderr=file)
    try:
        deadline = time.monotonic() + TIMEOUT_SECONDS
        while not (running := prefect.post("/flow_runs/filter", RUNNING)):
            assert time.monotonic() < deadline and terminal.poll() is None, log.read_text()
            time.sleep(0.3)
        prefect.post(f"/flow_runs/{running[0]['id']}/set_state", {"state": {"type": "CANCELLING"}})
        assert terminal.wait(TIMEOUT_SECONDS) == 130, log.read_text()
    finally:
        terminal.kill()
    assert "stopped; the same command resumes the run" in log.read_text()
    assert "Traceback" not in log.read_text()
    assert prefect.wait(running[0]["id"], "Cancelled")["state"]["message"] == "The run has stopped."


@pytest.mark.full
def test_a_cancelled_run_ends_as_cancelled_with_its_progress_shown_and_nothing_left_alive(
    house: House, prefect: Prefect, tmp_path: Path
) -> None:
    run = prefect.run_deployment(["sample.megabytes=30"])
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while not 0 < (prefect.artifacts(run).get("corpus-progress") or 0) < 100:
        assert time.monotonic() < deadline, prefect.artifacts(run)
        time.sleep(0.2)
    processes = family(prefect.run(run))
    house.command([str(BIN / "prefect"), "flow-run", "cancel", run], cwd=tmp_path)
    prefect.wait(run, "Cancelled")
    wait_gone(processes)
    prefect.wait(prefect.run_deployment(house.overrides), "Completed")


@pytest.mark.parametrize(("stop", "state"), [("cancel", "CANCELLED"), ("ctrl-c", "CRASHED")])
def test_a_run_that_interrupts_itself_is_cancelled_and_no_other_interrupt_is(
    prefect: Prefect, stop: str, state: str
) -> None:
    """The worker may be down, or act later than the run's own check of its state."""

    @flow(on_crashed=[confirm_cancel])
    def work() -> None:
        with interrupt_on_cancel(UUID(runtime.flow_run.id)):
            runs.append(str(runtime.flow_run.id))
            if stop == "ctrl-c":
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGUSR1)

    runs: list[str] = []
    with (
        temporary_settings({PREFECT_API_URL: f"{prefect.url}/api", PREFECT_API_AUTH_STRING: prefect.auth}),
        pytest.raises(KeyboardInterrupt),
    ):
        work()
    assert prefect.run(runs[0])["state"]["type"] == state


@pytest.mark.full
def test_a_run_that_is_cancelled_before_its_flow_begins_never_begins(house: House, prefect: Prefect) -> None:
    run = prefect.run_deployment(LONG)
    prefect.wait(run, "Pending", "Running")
    prefect.post(f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    found = prefect.wait(run, "Cancelled")
    assert found["state"]["type"] == "CANCELLED"
    if found["infrastructure_pid"]:
        number = int(str(found["infrastructure_pid"]).rpartition(":")[2])
        wait_gone([psutil.Process(number)] if psutil.pid_exists(number) else [])
    prefect.wait(prefect.run_deployment(house.overrides), "Completed")


@pytest.fixture
def client(prefect: Prefect) -> Iterator[Any]:
    from prefect.client.orchestration import SyncPrefectClient

    with SyncPrefectClient(f"{prefect.url}/api", auth_string=prefect.auth) as client:
        yield client


def test_automations_are_created_once_and_restored_when_they_differ(prefect: Prefect, client: Any) -> None:
    names = {wanted.name for wanted in automations()}

    def ours() -> list[dict[str, Any]]:
        return [found for found in prefect.post("/automations/filter", {}) if found["name"] in names]

    before = ours()
    assert {found["name"] for found in before} == names
    install_automations(client)
    assert ours() == before, "nothing to do: not even an update"
    first, second = ({k: v for k, v in found.items() if k not in ("id", "created", "updated")} for found in before[:2])
    place = f"/automations/{before[0]['id']}"
    prefect.ask("PUT", place, {**first, "trigger": {**first["trigger"], "within": 999}, "enabled": False})
    prefect.post("/automations/", second)
    install_automations(client)
    assert len(ours()) == len(names), "the duplicate is deleted"
    restored = prefect.get(place)
    assert restored["trigger"]["within"] == first["trigger"]["within"]
    assert restored["enabled"] is False, "paused by a user: stays paused"
    prefect.ask("PUT", place, first)
