"""One model replaces another under constant load, with memory for two engines and without."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.client import complete
from serving.config import LimitsConfig, ServingConfig
from serving.deploy import deploy, start_canary
from serving.errors import ServingError
from serving.record import DeploymentRecord, deployment_of, read_record, write_record
from stages.store import Store
from tests.serving.gateways import Gateway, Load, ask, gateway_thread, wait_for
from tests.support import alive

NEVER = 1e6
"""GiB that no machine has: one engine at a time."""


@pytest.fixture(scope="module")
def narrow_gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("narrow")
    with gateway_thread(Store(folder / "store"), folder / "state", two_engines_gib=NEVER) as found:
        yield found


@pytest.fixture
def narrow(narrow_gateway: Gateway) -> Iterator[Gateway]:
    """A gateway without memory for a second engine."""
    yield narrow_gateway
    narrow_gateway.clear()


@pytest.mark.parametrize("memory", ["enough", "little"])
def test_no_request_fails_when_the_champion_changes(
    request: pytest.FixtureRequest, tmp_path: Path, memory: str
) -> None:
    gateway: Gateway = request.getfixturevalue("gateway" if memory == "enough" else "narrow")
    store = gateway.store
    first = gateway.serve(gateway.model(), 1)
    old = gateway.engine_processes()
    file, long_answers = tmp_path / "go on", []

    def ask_long() -> None:
        with gateway.client() as client:
            long_answers.append(ask(client, f"hold {file}").status_code)

    def let_it_answer() -> None:
        def draining() -> bool:
            engine = gateway.status().engine(first.model_digest)
            return engine is not None and (engine.role == "retiring" or engine.state == "paused")

        wait_for(draining)
        file.touch()

    with Load(gateway, clients=12) as load:
        wait_for(lambda: load.answered_by("toy@1"))
        long = [threading.Thread(target=ask_long), threading.Thread(target=let_it_answer)]
        for thread in long:
            thread.start()
        wait_for(lambda: f"asked: hold {file}" in gateway.logs())
        second = deployment_of(gateway.model(), "toy", 2)
        status = deploy(second, store, gateway.url, gateway.key, timeout_seconds=120)
        assert status.serving and status.serving.version == "2"
        wait_for(lambda: load.answered_by("toy@2"))
        wait_for(lambda: len(gateway.status().engines) == 1)
        for thread in long:
            thread.join()
        assert not alive(old)
        # A model that does not start: the old one stays or is resumed, the record is restored, the reason reported.
        broken = deployment_of(gateway.model(broken=True), "toy", 3)
        with pytest.raises(ServingError, match="the architecture Broken is not supported"):
            deploy(broken, store, gateway.url, gateway.key, timeout_seconds=120)
        assert read_record(store).stable == second
        assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"
        count = len(load.seen)
        deploy(first, store, gateway.url, gateway.key, timeout_seconds=120)  # and back
        wait_for(lambda: ("toy@1", True) in load.seen[count:])
    assert load.failures == []
    assert long_answers == [200]  # the old engine was drained
    assert {model for model, _ in load.seen} == {"toy@1", "toy@2"}


def test_a_model_that_does_not_start_pauses_the_old_engine_only_once(narrow: Gateway) -> None:
    store = narrow.store
    narrow.serve(narrow.model(), 1)
    broken = deployment_of(narrow.model(broken=True), "toy", 2)
    write_record(store, DeploymentRecord(stable=broken))  # nobody restores the record
    wait_for(lambda: len(narrow.status().engines) == 2)
    wait_for(lambda: (served := narrow.status()).serving and served.engines[0].starts == 2)
    old, new = narrow.status().engines
    assert (old.version, old.failures, new.state, new.failures) == ("1", 0, "failed", 1)
    assert "Broken" in (new.reason or "") and new.ready_in is None  # not retried until the record is written again
    assert complete(narrow.url, narrow.key, "toy", "hi") == "toy@1 hi"
    fixed = deployment_of(narrow.model(), "toy", 3)
    assert deploy(fixed, store, narrow.url, narrow.key, timeout_seconds=120).serving


def test_queued_requests_wait_no_longer_than_their_timeout(narrow: Gateway, tmp_path: Path) -> None:
    file = tmp_path / "start"
    short = ServingConfig(limits=LimitsConfig(queue_timeout_seconds=0.3, max_concurrent=2))
    long = ServingConfig(limits=LimitsConfig(queue_timeout_seconds=600.0, max_concurrent=2))
    narrow.serve(narrow.model(), 1, short)
    slow = deployment_of(narrow.model(starts_when=str(file)), "toy", 2, short)
    write_record(narrow.store, DeploymentRecord(stable=slow))
    wait_for(lambda: [e.state for e in narrow.status().engines][:1] == ["paused"])
    answers: list[httpx.Response] = []
    with narrow.client() as client:
        assert client.get("/health").json() == {"status": "exchanging engines"}
        threads = [threading.Thread(target=lambda: answers.append(ask(client, "x"))) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.status_code for answer in answers) == [429, 503, 503]
        assert all(int(answer.headers["Retry-After"]) >= 1 for answer in answers)

        narrow.follow(DeploymentRecord(stable=slow.model_copy(update={"serving": long})))
        asyncio.run(disconnect_from_queue(narrow))
        wait_for(lambda: narrow.status().queued == 0)  # it would have waited for 600 s
        file.touch()
        wait_for(lambda: narrow.status().serving)
        assert ask(client, "x").headers["X-Headwater-Model"] == "toy@2"


async def disconnect_from_queue(gateway: Gateway) -> None:
    """A client that disconnects while its request is queued."""
    async with httpx.AsyncClient(base_url=gateway.url, headers=gateway.headers, verify=False) as client:
        waiting = asyncio.create_task(client.post("/v1/completions", json={"model": "toy", "prompt": "x"}, timeout=60))
        while gateway.status().queued == 0:
            await asyncio.sleep(0.02)
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)


def test_a_canary_waits_for_memory(narrow: Gateway) -> None:
    narrow.serve(narrow.model(), 1)
    second = deployment_of(narrow.model(), "toy", 2)
    start_canary(second, narrow.store)

    def canary() -> str | None:
        found = narrow.status().engine(second.model_digest)
        return found.state if found else None

    wait_for(lambda: canary() == "waiting")
    assert len(narrow.engine_processes()) == 3  # supervisor, engine and its child, of the one that serves
    assert complete(narrow.url, narrow.key, "toy", "hi") == "toy@1 hi"
    deploy(second, narrow.store, narrow.url, narrow.key, timeout_seconds=120)
    assert complete(narrow.url, narrow.key, "toy", "hi") == "toy@2 hi"
