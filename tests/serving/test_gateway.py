"""The gateway as a process, over stand-in engines."""

import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import httpx
import pytest

from serving.client import complete, gateway_status
from serving.config import EngineConfig, LimitsConfig, ServingConfig
from serving.deploy import deploy, prepare, withdraw
from serving.engine import engines_folder
from serving.errors import ServingError
from serving.record import deployment_of
from stages.artifact import Store
from tests.serving.conftest import Gateway, fake_model, start_fake, start_gateway, stop_gateway, wait_for
from tests.support import alive, free_port


def ask(client: httpx.Client, prompt: str, **fields: object) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "toy", "prompt": prompt, **fields})


def test_routes_keys_and_limits(gateway: Gateway, store: Store) -> None:
    with gateway.client() as client:
        nothing = ask(client, "x")
        assert nothing.status_code == 503 and nothing.headers["Retry-After"]
        assert nothing.json()["error"]["code"] == "model_not_ready"
        assert client.get("/health").status_code == 503

        limits = LimitsConfig(max_body_bytes=2000, max_concurrent=2, request_timeout=4)
        gateway.serve(fake_model(store, "a"), 1, ServingConfig(limits=limits))
        assert client.get("/health").json() == {"status": "ready"}
        answer = ask(client, "hello")
        assert answer.status_code == 200 and answer.json()["choices"][0]["text"] == "toy@1 hello"
        assert answer.headers["X-Headwater-Model"] == "toy@1"
        assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["toy", "toy@1"]
        assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"

        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": gateway.key}):
            for path in ("/v1/completions", "/v1/chat/completions"):
                stranger = httpx.post(gateway.url + path, json={"prompt": "x"}, headers=header)
                assert stranger.status_code == 401 and stranger.json()["error"]["code"] == "invalid_api_key"
            assert httpx.get(f"{gateway.url}/v1/models", headers=header).status_code == 401

        for path in ("/invocations", "/tokenize", "/metrics", "/docs", "/v1/responses", "/v1/completions/render", "/"):
            assert client.post(path, json={}).status_code == 404
        assert client.get("/v1/completions").status_code == 405
        assert client.get("/headwater/status").status_code == 200
        assert client.get("/headwater/status", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 404

        assert ask(client, "x" * 3000).status_code == 413
        pieces = client.post("/v1/completions", content=(b"x" * 500 for _ in range(10)))
        assert pieces.status_code == 413 and pieces.json()["error"]["code"] == "body_too_large"
        assert client.post("/v1/completions", content=b"{").json()["error"]["code"] == "invalid_json"
        chat = client.post("/v1/chat/completions", json={"messages": []})
        assert chat.status_code == 400 and "no chat template" in chat.json()["error"]["message"]

        late = ask(client, "sleep 30")
        assert late.status_code == 504
        threads = [threading.Thread(target=ask, args=(client, "sleep 1.5")) for _ in range(2)]
        for thread in threads:
            thread.start()
        wait_for(lambda: gateway_status(gateway.url).engines[0].in_flight == 2)
        busy = ask(client, "x")
        assert busy.status_code == 429 and busy.headers["Retry-After"] == "1"
        for thread in threads:
            thread.join()
        assert ask(client, "x").status_code == 200


def test_streaming_and_clients_that_go_away(gateway: Gateway, store: Store) -> None:
    gateway.serve(fake_model(store, "a"), 1)
    with gateway.client() as client:
        body = {"model": "toy", "prompt": "chunks 10", "stream": True}
        with client.stream("POST", "/v1/completions", json=body) as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = [line.removeprefix("data: ") for line in answer.iter_lines() if line]
        assert events[-1] == "[DONE]"
        assert "".join(json.loads(e)["choices"][0]["text"] for e in events[:-1]) == "0 1 2 3 4 5 6 7 8 9 "

        with client.stream("POST", "/v1/completions", json={**body, "prompt": "chunks 400"}) as answer:
            first = next(answer.iter_lines())  # comes while the engine is still at work: nothing is held back
            assert "[DONE]" not in first
        wait_for(lambda: "aborted: stream" in gateway.logs())
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={"prompt": "sleep 20"}, timeout=0.5)
        wait_for(lambda: "aborted: sleep 20" in gateway.logs())
        wait_for(lambda: gateway_status(gateway.url).engines[0].in_flight == 0)


def test_prepared_model_waits_without_traffic(gateway: Gateway, store: Store) -> None:
    gateway.serve(fake_model(store, "a"), 1)
    second = deployment_of(fake_model(store, "b"), "toy", 2)
    prepare(second, store)

    def canary_state() -> str | None:
        return next((e.state for e in gateway_status(gateway.url).engines if e.role == "canary"), None)

    wait_for(lambda: canary_state() == "ready")
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    status = deploy(second, store, gateway.url, timeout=120)
    promoted = status.engine(second.model_digest)
    assert promoted and (promoted.role, promoted.starts) == ("stable", 1)
    prepare(deployment_of(fake_model(store, "c"), "toy", 3), store)
    wait_for(lambda: canary_state() == "ready")
    withdraw(store)
    wait_for(lambda: canary_state() is None)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"


@pytest.mark.skipif(sys.platform != "linux", reason="orphans are found through Linux's child subreaper")
def test_nothing_survives_a_killed_gateway(gateway: Gateway, store: Store) -> None:
    gateway.serve(fake_model(store, "a"), 1, ServingConfig(engine=EngineConfig(stop_grace=1)))
    below = gateway.engine_processes()
    assert len(below) == 3  # supervisor, engine, the engine's own child in another session
    gateway.process.kill()
    gateway.process.wait()
    wait_for(lambda: not alive(below))


def test_a_new_gateway_ends_what_a_killed_one_left(store: Store, tmp_path: Path) -> None:
    state = tmp_path / "state"
    folder = engines_folder(state) / "abc"
    folder.mkdir(parents=True)
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=folder)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], cwd=state)
    try:
        gateway = start_gateway(store, state)
        assert left.wait(10) == -signal.SIGKILL
        assert other.poll() is None
        stop_gateway(gateway)
    finally:
        left.kill()
        other.kill()


def test_a_port_in_use_and_a_second_gateway_are_told(gateway: Gateway, store: Store, tmp_path: Path) -> None:
    port = gateway.url.rsplit(":", 1)[1]
    for state, at, words in (
        ("other", port, f"port {port} of 127.0.0.1"),
        ("state", str(free_port()), "another gateway"),
    ):
        command = [sys.executable, "-m", "serving", "--store", store.url, "--state-folder", str(tmp_path / state)]
        result = subprocess.run([*command, "--port", at], capture_output=True, text=True, timeout=300)
        assert result.returncode == 2
        assert len(result.stderr.strip().splitlines()) == 1 and words in result.stderr


def test_waiting_for_a_gateway_that_is_not_there(store: Store) -> None:
    entry = deployment_of(fake_model(store, "a"), "toy", 1)
    with pytest.raises(ServingError, match="headwater up"):
        deploy(entry, store, f"http://127.0.0.1:{free_port()}", timeout=1)


def test_requests_in_flight_are_finished_at_sigterm(store: Store, tmp_path: Path) -> None:
    gateway = start_fake(store, tmp_path / "state")
    gateway.serve(fake_model(store, "a"), 1)
    answers: list[int] = []
    with gateway.client() as client:
        thread = threading.Thread(target=lambda: answers.append(ask(client, "sleep 1.5").status_code))
        thread.start()
        wait_for(lambda: gateway_status(gateway.url).engines[0].in_flight == 1)
        time.sleep(0.1)
        stop_gateway(gateway)
        thread.join()
    assert answers == [200]
