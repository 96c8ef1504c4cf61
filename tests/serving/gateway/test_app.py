"""The gateway's routes, key and limits: one gateway and one engine for all tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.client import complete, gateway_status
from serving.errors import ServingError
from serving.record import Deployment
from stages.store import Store
from tests.serving.gateways import Gateway, ask, gateway_thread, wait_for


@pytest.fixture(scope="module")
def served(shared_gateway: Gateway) -> Deployment:
    return shared_gateway.serve(shared_gateway.model(), 1)


@pytest.fixture
def gateway(shared_gateway: Gateway, served: Deployment) -> Gateway:
    """The file's gateway while it serves; its engine is kept between tests."""
    return shared_gateway


@pytest.fixture
def client(gateway: Gateway) -> Iterator[httpx.Client]:
    with gateway.client() as found:
        yield found


def test_without_a_model_requests_get_503_with_retry_after(store: Store, tmp_path: Path) -> None:
    with gateway_thread(store, tmp_path / "state") as empty, empty.client() as client:
        answer = ask(client, "x")
        assert answer.status_code == 503 and answer.headers["Retry-After"]
        assert answer.json()["error"]["code"] == "model_not_ready"
        assert client.get("/health").status_code == 503


def test_a_gateway_that_serves_is_ready(client: httpx.Client) -> None:
    assert client.get("/health").json() == {"status": "ready"}


def test_the_engines_answer_is_forwarded_with_the_models_name(client: httpx.Client) -> None:
    answer = ask(client, "hello")
    assert answer.status_code == 200 and answer.json()["choices"][0]["text"] == "toy@1 hello"
    assert answer.headers["X-Headwater-Model"] == "toy@1"


def test_headwaters_own_client_gets_an_answer(gateway: Gateway) -> None:
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"


def test_a_model_is_listed_under_both_its_names(client: httpx.Client) -> None:
    assert [m["id"] for m in client.get("/v1/models").json()["data"]] == ["toy", "toy@1"]


@pytest.mark.parametrize("given", ["nothing", "another key", "the key without Bearer"])
def test_a_request_without_the_key_is_refused(gateway: Gateway, given: str) -> None:
    values = {"another key": "Bearer wrong", "the key without Bearer": gateway.key}
    header = {"Authorization": values[given]} if given in values else {}
    with gateway.client(key=False) as stranger:
        for path in ("/v1/completions", "/v1/chat/completions"):
            answer = stranger.post(path, json={"prompt": "x"}, headers=header)
            assert answer.status_code == 401 and answer.json()["error"]["code"] == "invalid_api_key"
        assert stranger.get("/v1/models", headers=header).status_code == 401


@pytest.mark.parametrize(
    "path",
    [
        *("/invocations", "/tokenize", "/metrics", "/docs", "/v1/responses", "/v1/completions/render", "/"),
        *("/inference/v1/generate", "//v1/completions", "/v1/completions/", "/v1/completions/../../metrics"),
    ],
)
def test_other_routes_of_the_engine_do_not_exist(client: httpx.Client, path: str) -> None:
    assert client.post(path, json={}).status_code == 404


def test_completions_require_post(client: httpx.Client) -> None:
    assert client.get("/v1/completions").status_code == 405


def test_only_clients_with_the_key_on_this_machine_get_the_status(gateway: Gateway, client: httpx.Client) -> None:
    assert client.get("/headwater/status").status_code == 200
    assert client.get("/headwater/status", headers={"X-Forwarded-For": "192.0.2.9"}).status_code == 404
    with gateway.client(key=False) as stranger:
        for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {gateway.key}"}):
            answer = stranger.get("/headwater/status", headers=header)
            assert answer.status_code == 401 and str(gateway.state) not in answer.text and "toy" not in answer.text


def test_others_learn_only_that_the_gateway_lives(gateway: Gateway) -> None:
    with gateway.client(key=False) as stranger:
        assert stranger.get("/health/live").json() == {"status": "live"}
        assert set(stranger.get("/health").json()) == {"status"}


def test_headwaters_own_client_reports_a_wrong_key(gateway: Gateway) -> None:
    assert gateway_status(gateway.url, gateway.key).serving
    with pytest.raises(ServingError, match="another API key"):
        gateway_status(gateway.url, "hw-of-another-installation")


def test_a_body_beyond_the_limit_is_refused(gateway: Gateway, served: Deployment, client: httpx.Client) -> None:
    with gateway.limits(served, max_body_bytes=2000):
        assert ask(client, "x" * 3000).status_code == 413
        chunked = client.post("/v1/completions", content=(b"x" * 500 for _ in range(10)))  # without Content-Length
        assert chunked.status_code == 413 and chunked.json()["error"]["code"] == "body_too_large"


def test_a_body_that_is_not_json_is_refused(client: httpx.Client) -> None:
    assert client.post("/v1/completions", content=b"{").json()["error"]["code"] == "invalid_json"


def test_a_value_that_cannot_be_forwarded_is_refused_by_name(client: httpx.Client) -> None:
    for value in (rb'"\ud800"', b"1e400", b"[" * 900 + b"]" * 900):
        answer = client.post("/v1/completions", content=b'{"model": "toy", "prompt": "x", "user": %s}' % value)
        assert answer.status_code == 400 and answer.json()["error"]["param"].startswith("user")


def test_a_chat_without_a_template_is_refused(client: httpx.Client) -> None:
    chat = client.post("/v1/chat/completions", json={"model": "toy", "messages": []})
    assert chat.status_code == 400 and "no chat template" in chat.json()["error"]["message"]


def test_an_answer_that_takes_too_long_is_cancelled(
    gateway: Gateway, served: Deployment, client: httpx.Client, tmp_path: Path
) -> None:
    with gateway.limits(served, request_timeout_seconds=0.3):
        assert ask(client, f"hold {tmp_path / 'never'}").status_code == 504


def test_requests_beyond_the_limit_get_429_with_retry_after(
    gateway: Gateway, served: Deployment, client: httpx.Client, tmp_path: Path
) -> None:
    with gateway.limits(served, max_concurrent=2):
        held = [threading.Thread(target=ask, args=(client, f"hold {tmp_path / 'go on'}")) for _ in range(2)]
        for thread in held:
            thread.start()
        wait_for(lambda: gateway.engine().in_flight == 2)
        busy = ask(client, "x")
        assert busy.status_code == 429 and busy.headers["Retry-After"] == "1"
        (tmp_path / "go on").touch()
        for thread in held:
            thread.join()
        wait_for(lambda: gateway.engine().in_flight == 0)  # they are counted until shortly after their last byte
        assert ask(client, "x").status_code == 200
