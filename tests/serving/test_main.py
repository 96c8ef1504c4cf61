"""The gateway as a process: its start, its end, and that no engine survives it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx
import pytest

from serving.config import EngineConfig, ServingConfig
from serving.engines.engine import engines_folder
from stages.store import Store
from tests.serving.gateways import ask, fake_gateway_process, fake_model, gateway_process, wait_for
from tests.support import alive, free_port


@pytest.mark.skipif(sys.platform != "linux", reason="orphans not tested: only Linux has child subreapers")
def test_nothing_survives_a_killed_gateway(store: Store, tmp_path: Path) -> None:
    with fake_gateway_process(store, tmp_path / "state") as gateway:
        gateway.serve(fake_model(store, "a"), 1, ServingConfig(engine=EngineConfig(stop_grace_seconds=1)))
        below = gateway.engine_processes()
        assert len(below) == 3  # supervisor, engine, the engine's own child in another session
        gateway.process.kill()
        gateway.process.wait()
        wait_for(lambda: not alive(below))


def test_a_new_gateway_kills_the_orphans_of_a_killed_one(store: Store, tmp_path: Path) -> None:
    state = tmp_path / "state"
    folder = engines_folder(state) / "abc"
    folder.mkdir(parents=True)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=folder)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=state)
    try:
        with gateway_process(store, state):
            assert left.wait(10) == -signal.SIGKILL
            assert other.poll() is None
    finally:
        for process in (left, other):
            process.kill()
            process.wait()


def test_a_port_in_use_and_a_second_gateway_are_reported(store: Store, tmp_path: Path) -> None:
    with fake_gateway_process(store, tmp_path / "state") as gateway:
        port = gateway.url.rsplit(":", 1)[1]
        for state, at, words in (
            ("other", port, f"port {port} of 127.0.0.1"),
            ("state", str(free_port()), "another gateway"),
        ):
            command = [sys.executable, "-m", "serving", "--store", store.url, "--state-folder", str(tmp_path / state)]
            result = subprocess.run([*command, "--port", at], capture_output=True, text=True, timeout=300)
            assert result.returncode == 2
            assert len(result.stderr.strip().splitlines()) == 1 and words in result.stderr


def test_requests_in_flight_are_finished_at_sigterm(store: Store, tmp_path: Path) -> None:
    file, answers = tmp_path / "go on", []
    with fake_gateway_process(store, tmp_path / "state") as gateway:
        gateway.serve(fake_model(store, "a"), 1)

        def finish() -> None:
            def listens() -> bool:
                try:
                    return bool(gateway.status_client.get("/health"))
                except httpx.TransportError:
                    return False

            wait_for(lambda: not listens())  # it has received the signal
            file.touch()

        with gateway.client() as client:
            asking = threading.Thread(target=lambda: answers.append(ask(client, f"hold {file}").status_code))
            asking.start()
            wait_for(lambda: f"asked: hold {file}" in gateway.logs())
            finishing = threading.Thread(target=finish)
            finishing.start()
            gateway.stop()
            asking.join()
            finishing.join()
    assert answers == [200]
