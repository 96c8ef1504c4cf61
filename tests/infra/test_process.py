"""Background processes are recorded, found by their record, and stopped with all their descendants."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from infra import services
from infra.process import ManagedProcess
from infra.settings import load_settings
from tests.support import alive

FAMILY = (
    "import subprocess, sys, time\n"
    "subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
    "time.sleep(600)"
)
IGNORES_SIGTERM = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); time.sleep(600)"
)


def _wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.05)


def test_a_process_is_started_found_and_stopped_with_its_children(tmp_path: Path) -> None:
    process = ManagedProcess(tmp_path, "family")
    process.start([sys.executable, "-c", FAMILY], {}, tmp_path)
    found = ManagedProcess(tmp_path, "family").find()
    assert found is not None
    _wait_for(lambda: len(found.children(recursive=True)) == 1)
    family = [found, *found.children(recursive=True)]
    assert process.stop()
    assert not alive(family)
    assert process.find() is None
    assert not process.stop()


def test_a_process_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    process = ManagedProcess(tmp_path, "stubborn")
    process.start([sys.executable, "-c", IGNORES_SIGTERM], {}, tmp_path)
    _wait_for(lambda: "ready" in process.last_lines())
    assert process.stop(grace_seconds=0.5)
    assert process.find() is None


def test_a_later_process_with_the_same_pid_is_not_ours(tmp_path: Path) -> None:
    process = ManagedProcess(tmp_path, "other")
    (tmp_path / "other.json").write_text(f'{{"pid": {os.getpid()}, "created": 1.0, "command": []}}')
    assert process.find() is None
    assert not process.stop()


def test_a_port_in_use_is_reported_with_the_remedy(own_installation: dict[str, str]) -> None:
    settings = load_settings()
    with socket.socket() as occupant:
        occupant.bind(("127.0.0.1", settings.mlflow_port))
        occupant.listen()
        with pytest.raises(
            services.ServiceError, match=rf"port {settings.mlflow_port} for mlflow.*HEADWATER_MLFLOW_PORT"
        ):
            services.up(settings)
    assert not any(row["running"] for row in services.status(settings)), "nothing was started"


def test_the_error_of_a_service_that_exits_at_once_quotes_its_log(
    own_installation: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = load_settings()
    dying = services.Service(
        "dying", [sys.executable, "-c", "raise SystemExit('no disk left')"], {}, health="http://127.0.0.1:1/health"
    )
    monkeypatch.setattr(services, "services", lambda settings: [dying])
    with pytest.raises(services.ServiceError, match=r"dying exited while starting[\s\S]*no disk left"):
        services.up(settings)


def test_down_stops_a_run_in_a_terminal(own_installation: dict[str, str], tmp_path: Path) -> None:
    script = (
        "import time\nfrom infra.services import register_run\nfrom infra.settings import load_settings\n"
        "with register_run(load_settings()):\n    print('running', flush=True)\n    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None and run.stdout.readline() == "running\n"
        ended = services.down(load_settings())
        assert ended == [f"run-{run.pid}"]
        run.wait(10)
    assert services.down(load_settings()) == []
