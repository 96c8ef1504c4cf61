"""The deployment record is damaged, gone, or in an object store (moto's, asked by real requests) that goes away."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import complete
from serving.deploy import deploy
from serving.record import DeploymentRecord, deployment_of, write_record
from stages.store import Store
from tests.serving.gateways import Gateway, GatewayProcess, fake_gateway_process, fake_model, wait_for
from tests.support import ObjectStore


def test_a_damaged_record_ends_nothing(gateway: Gateway) -> None:
    store = gateway.store
    gateway.serve(gateway.model(), 1)
    record = store.local_path("deployments/record.json")
    for break_it, words in (
        (lambda: store.put("deployments/record.json", b"nonsense"), "not a valid deployment record"),
        (record.unlink, "missing"),
    ):
        break_it()
        wait_for(lambda words=words: words in (gateway.status().record_error or ""))
        assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    write_record(store, DeploymentRecord())
    wait_for(lambda: not gateway.status().engines)
    assert gateway.status().record_error is None


@pytest.fixture
def server(object_store: ObjectStore) -> Iterator[ObjectStore]:
    """The session's S3 server, brought back at the end."""
    yield object_store
    object_store.stop()
    object_store.start()


@pytest.fixture
def far_gateway(server: ObjectStore, remote: Store, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A process, because it must not share the tests' connections to the store, and has to end by itself."""
    with fake_gateway_process(remote, tmp_path / "state") as found:
        yield found


def test_what_is_served_goes_on_while_the_store_is_away(
    far_gateway: GatewayProcess, remote: Store, server: ObjectStore
) -> None:
    gateway = far_gateway
    deploy(deployment_of(fake_model(remote, "a"), "toy", 1), remote, gateway.url, timeout_seconds=120)
    second = deployment_of(fake_model(remote, "b"), "toy", 2)
    server.stop()
    wait_for(lambda: gateway.status().record_error)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    os.kill(gateway.engine_pid(), signal.SIGKILL)  # it is started again from the local copy
    wait_for(lambda: (status := gateway.status()).serving and status.engines[0].starts == 2)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"

    server.start()
    wait_for(lambda: gateway.status().record_error is None)
    deploy(second, remote, gateway.url, timeout_seconds=120)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"


def test_the_gateway_ends_while_the_store_is_away(far_gateway: GatewayProcess, server: ObjectStore) -> None:
    server.stop()
    wait_for(lambda: far_gateway.status().record_error)
    assert far_gateway.process.poll() is None
    far_gateway.stop()
    assert far_gateway.process.returncode == 0
