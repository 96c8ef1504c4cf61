"""One model takes the place of another under constant load, with memory for two engines and without."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving import room
from serving.client import complete, gateway_status
from serving.config import EngineConfig, LimitsConfig, ServingConfig
from serving.deploy import deploy, prepare
from serving.errors import ServingError
from serving.record import DeploymentRecord, deployment_of, read_record, write_record
from serving.room import room_for_two
from stages.artifact import Store
from tests.serving.conftest import Gateway, Load, fake_model, start_fake, stop_gateway, wait_for
from tests.support import alive

NEVER = "1000000"
"""GiB that no machine has available: one engine at a time."""


@pytest.fixture
def narrow(store: Store, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway without memory for a second engine."""
    found = start_fake(store, tmp_path / "state", "--two-engines-gib", NEVER)
    yield found
    stop_gateway(found)


@pytest.mark.parametrize("memory", ["enough", "little"])
def test_no_request_fails_when_the_champion_changes(request: pytest.FixtureRequest, store: Store, memory: str) -> None:
    gateway: Gateway = request.getfixturevalue("gateway" if memory == "enough" else "narrow")
    first = gateway.serve(fake_model(store, "a"), 1)
    old = gateway.engine_processes()
    long_answers: list[int] = []

    def ask_long() -> None:
        with gateway.client() as client:
            long_answers.append(client.post("/v1/completions", json={"prompt": "sleep 2"}).status_code)

    with Load(gateway, clients=12) as load:
        wait_for(lambda: load.answered_by("toy@1"))
        long = threading.Thread(target=ask_long)
        long.start()
        second = deployment_of(fake_model(store, "b"), "toy", 2)
        status = deploy(second, store, gateway.url, timeout=120)
        assert status.serving and status.serving.version == "2"
        wait_for(lambda: load.answered_by("toy@2"))
        wait_for(lambda: len(gateway_status(gateway.url).engines) == 1)
        long.join()
        assert not alive(old)
        # A model that does not start: the old one goes on, or comes back; the record goes back, and the reason is told.
        broken = deployment_of(fake_model(store, "c", architecture="Broken"), "toy", 3)
        with pytest.raises(ServingError, match="the architecture Broken is not supported"):
            deploy(broken, store, gateway.url, timeout=120)
        assert read_record(store).stable == second
        assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"
        count = len(load.seen)
        deploy(first, store, gateway.url, timeout=120)  # and back
        wait_for(lambda: ("toy@1", True) in load.seen[count:])
    assert load.failures == []
    assert long_answers == [200]  # the old engine finished what it had begun
    assert {model for model, _ in load.seen} == {"toy@1", "toy@2"}


def test_a_model_that_does_not_start_ends_the_old_engine_once(narrow: Gateway, store: Store) -> None:
    narrow.serve(fake_model(store, "a"), 1)
    broken = deployment_of(fake_model(store, "b", architecture="Broken"), "toy", 2)
    write_record(store, DeploymentRecord(stable=broken))  # nobody puts the record back
    wait_for(lambda: len(gateway_status(narrow.url).engines) == 2)
    wait_for(lambda: (served := gateway_status(narrow.url)).serving and served.engines[0].starts == 2)
    old, new = gateway_status(narrow.url).engines
    assert (old.version, old.failures, new.state, new.failures) == ("1", 0, "failed", 1)
    assert "Broken" in (new.reason or "") and new.ready_in is None  # left alone until the record is written again
    assert complete(narrow.url, narrow.key, "toy", "hi") == "toy@1 hi"
    mended = deployment_of(fake_model(store, "c"), "toy", 3)
    assert deploy(mended, store, narrow.url, timeout=120).serving


def test_requests_wait_no_longer_than_they_may(narrow: Gateway, store: Store) -> None:
    limits = LimitsConfig(queue_timeout=0.5, max_concurrent=2)
    narrow.serve(fake_model(store, "a"), 1, ServingConfig(limits=limits))
    slow = deployment_of(fake_model(store, "b", architecture="Slow"), "toy", 2, ServingConfig(limits=limits))
    write_record(store, DeploymentRecord(stable=slow))
    wait_for(lambda: [e.state for e in gateway_status(narrow.url).engines][:1] == ["paused"])
    answers: list[httpx.Response] = []
    with narrow.client() as client:
        assert client.get("/health").json() == {"status": "exchanging engines"}

        def ask() -> None:
            answers.append(client.post("/v1/completions", json={"prompt": "x"}))

        threads = [threading.Thread(target=ask) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [429, 503, 503]
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)
        with pytest.raises(httpx.ReadTimeout):
            client.post("/v1/completions", json={"prompt": "x"}, timeout=0.1)
        wait_for(lambda: gateway_status(narrow.url).queued == 0)
        wait_for(lambda: gateway_status(narrow.url).serving)
        assert client.post("/v1/completions", json={"prompt": "x"}).headers["X-Headwater-Model"] == "toy@2"


def test_a_prepared_model_waits_for_memory(narrow: Gateway, store: Store) -> None:
    narrow.serve(fake_model(store, "a"), 1)
    second = deployment_of(fake_model(store, "b"), "toy", 2)
    prepare(second, store)

    def canary() -> str | None:
        found = gateway_status(narrow.url).engine(second.model_digest)
        return found.state if found else None

    wait_for(lambda: canary() == "waiting")
    assert len(narrow.engine_processes()) == 3  # supervisor, engine and its child: of the one that serves
    assert complete(narrow.url, narrow.key, "toy", "hi") == "toy@1 hi"
    deploy(second, store, narrow.url, timeout=120)
    assert complete(narrow.url, narrow.key, "toy", "hi") == "toy@2 hi"


def test_room_for_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, half = EngineConfig(), EngineConfig(gpu_memory_fraction=0.4)
    monkeypatch.setattr(room, "GPU", tmp_path / "none")
    monkeypatch.setattr(room, "available_memory", lambda: 12 << 30)
    assert room_for_two(one, one, 12.0) and not room_for_two(one, one, 12.1)
    monkeypatch.setattr(room, "GPU", tmp_path)
    assert room_for_two(half, half, 12.0) and not room_for_two(half, one, 12.0)
