"""The deployment record is damaged, missing, or in an object store (moto, over HTTP) that becomes unreachable."""

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


def test_a_damaged_record_does_not_stop_the_engine(gateway: Gateway) -> None:
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
    """The session's S3 server, restarted at the end."""
    yield object_store
    object_store.stop()
    object_store.start()


@pytest.fixture
def remote_gateway(server: ObjectStore, remote: Store, tmp_path: Path) -> Iterator[GatewayProcess]:
    """A process: it must not share the tests' connections to the store, and has to exit by itself."""
    with fake_gateway_process(remote, tmp_path / "state") as found:
        yield found


def test_the_model_stays_in_service_while_the_store_is_unreachable(
    remote_gateway: GatewayProcess, remote: Store, server: ObjectStore
) -> None:
    gateway = remote_gateway
    deploy(deployment_of(fake_model(remote, "a"), "toy", 1), remote, gateway.url, gateway.key, timeout_seconds=120)
    second = deployment_of(fake_model(remote, "b"), "toy", 2)
    server.stop()
    wait_for(lambda: gateway.status().record_error)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    os.kill(gateway.engine_pid(), signal.SIGKILL)  # it is restarted from the local copy
    wait_for(lambda: (status := gateway.status()).serving and status.engines[0].starts == 2)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"

    server.start()
    wait_for(lambda: gateway.status().record_error is None)
    deploy(second, remote, gateway.url, gateway.key, timeout_seconds=120)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"


def test_the_gateway_ends_while_the_store_is_unreachable(remote_gateway: GatewayProcess, server: ObjectStore) -> None:
    server.stop()
    wait_for(lambda: remote_gateway.status().record_error)
    assert remote_gateway.process.poll() is None
    remote_gateway.stop()
    assert remote_gateway.process.returncode == 0
