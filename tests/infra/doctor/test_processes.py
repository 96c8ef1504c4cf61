"""Checks of ports, listeners and leftovers."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from infra.doctor import processes
from infra.doctor.processes import Port, Process, Snapshot, check_leftovers, check_listeners, check_port
from infra.process import ManagedProcess
from tests.support import REPOSITORY, free_port

NGINX = Process(7, 1, "nginx", "nginx: master")
STRANGER = Process(8, 1, "python", "python -m infra.mlflow_server --port 5000", home="/other/home")


@pytest.mark.parametrize(
    ("port", "state", "words"),
    [
        (Port("mlflow", 5000, "HEADWATER_MLFLOW_PORT"), "ok", "free"),
        (Port("mlflow", 5000, "V", pid=5, healthy=True, error=98, owner_is_ours=True), "ok", "answers"),
        (Port("mlflow", 5000, "V", pid=5, error=98, owner_is_ours=True), "warning", "mlflow.log"),
        (Port("mlflow", 5000, "V", pid=5), "warning", "does not answer"),
        (Port("mlflow", 5000, "V", error=98, owner=NGINX), "problem", "kill 7"),
        (Port("mlflow", 5000, "V", pid=5, error=98, owner=NGINX), "problem", "nginx"),
        (Port("mlflow", 5000, "V", error=98, owner=STRANGER), "problem", "HEADWATER_HOME=/other/home"),
        (Port("mlflow", 5000, "V", error=98, owner=STRANGER, owner_is_ours=True), "problem", "make stop"),
        (Port("mlflow", 5000, "V", error=98), "problem", "cannot see"),
        (Port("mlflow", 80, "V", error=errno.EACCES), "problem", "V=PORT"),
    ],
)
def test_ports(port: Port, state: str, words: str) -> None:
    check = check_port(port)
    assert check.state == state and words in check.found + check.remedy


def snapshot(*found: Process, managed: dict[str, int] | None = None) -> Snapshot:
    return Snapshot({process.pid: process for process in found}, "/state", managed or {})


def test_listeners_beyond_loopback_are_reported_down_to_the_last_descendant() -> None:
    service = Process(10, 1, "python", "python -m infra.prefect_server --port 4200", listens=(("127.0.0.1", 4200),))
    run = Process(11, 10, "python", "python flow.py", listens=(("::1", 9), ("::ffff:127.0.0.1", 10)))
    raylet = Process(12, 11, "raylet", "/x/ray/core/src/ray/raylet", listens=(("::", 41575), ("192.0.2.2", 7)))
    other = Process(13, 1, "nginx", "nginx", listens=(("0.0.0.0", 80),))
    fine = check_listeners(snapshot(service, run, other, managed={"prefect": 10}))
    assert fine.state == "ok" and "3 ports of 2 processes" in fine.found
    bad = check_listeners(snapshot(service, run, raylet, other, managed={"prefect": 10}))
    assert bad.state == "problem" and "raylet 12 on [::]:41575 and 192.0.2.2:7" in bad.found
    assert "nginx" not in bad.found and "Ray:" in bad.remedy
    worker = Process(14, 11, "ray::RayTrainWorker", "ray::RayTrainWorker", listens=(("::", 51777),))
    training = check_listeners(snapshot(service, run, worker, managed={"prefect": 10}))
    assert training.state == "warning" and "firewall" in training.remedy


def test_leftovers_have_neither_a_record_nor_a_running_parent() -> None:
    mark = {"home": "/state"}
    orphan = Process(20, 1, "gcs_server", "/v/ray/core/src/ray/gcs/gcs_server", **mark)
    child = Process(21, 20, "ray::IDLE", "ray::IDLE")  # Ray overwrites its environment
    engine = Process(22, 1, "VLLM::EngineCor", "VLLM::EngineCore", folder="/state/gateway/engines/ab")
    gateway = Process(30, 1, "python", "python -m serving --port 1", **mark)
    managed = Process(31, 30, "VLLM::EngineCor", "VLLM::EngineCore", folder="/state/gateway/engines/cd")
    test = Process(40, 39, "python", "python -m pytest", **mark)
    with_driver = Process(41, 40, "raylet", "/v/ray/core/src/ray/raylet/raylet", **mark)
    foreign = Process(50, 1, "raylet", "/v/ray/core/src/ray/raylet/raylet", home="/another")
    shell = Process(60, 1, "bash", "bash", **mark)
    check = check_leftovers(
        snapshot(orphan, child, engine, gateway, managed, test, with_driver, foreign, shell, managed={"gateway": 30})
    )
    assert check.state == "warning" and "`kill 20 21 22`" in check.remedy
    assert (
        check_leftovers(snapshot(gateway, managed, test, with_driver, foreign, managed={"gateway": 30})).state == "ok"
    )


def test_a_service_without_a_record_is_a_leftover(tmp_path: Path) -> None:
    service = ManagedProcess(tmp_path, "mlflow")
    command = [sys.executable, "-c", "import time; time.sleep(60)", "-m", "infra.mlflow_server"]
    service.start(command, {"HEADWATER_HOME": str(tmp_path)}, REPOSITORY)
    try:
        running = service.find()
        assert running is not None
        recorded = processes.take_snapshot(str(tmp_path), {"mlflow": running.pid})
        assert check_leftovers(recorded).state == "ok"
        unrecorded = check_leftovers(processes.take_snapshot(str(tmp_path), {}))
        assert unrecorded.state == "warning" and f"`kill {running.pid}`" in unrecorded.remedy
    finally:
        service.stop()


def test_the_snapshot_shows_listeners_and_their_installation(tmp_path: Path) -> None:
    port = free_port()
    script = (
        f"import socket, time; s = socket.create_server(('0.0.0.0', {port})); print('up', flush=True); time.sleep(60)"
    )
    # It has our mark, and looks like one of our services.
    command = [sys.executable, "-c", script, "-m", "infra.mlflow_server"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "HEADWATER_HOME": str(tmp_path)}
    ) as child:
        try:
            assert child.stdout is not None and child.stdout.readline() == b"up\n"
            found = processes.take_snapshot(str(tmp_path), {})
            listening = check_listeners(found)
            assert listening.state == "problem" and f"{child.pid} on 0.0.0.0:{port}" in listening.found
            seen = processes.inspect_port(found, "mlflow", port, "HEADWATER_MLFLOW_PORT", "http://127.0.0.1:1/")
            assert seen.error == errno.EADDRINUSE and seen.owner is not None and seen.owner.pid == child.pid
            elsewhere = processes.take_snapshot(str(tmp_path / "other"), {})
            assert check_listeners(elsewhere).state == "ok"
            seen = processes.inspect_port(elsewhere, "mlflow", port, "HEADWATER_MLFLOW_PORT", "http://127.0.0.1:1/")
            assert str(tmp_path) in check_port(seen).found
        finally:
            child.kill()
