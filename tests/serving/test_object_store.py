"""The gateway over an object store: real S3 requests to moto's server, which goes away and comes back."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from serving.client import complete, gateway_status
from serving.deploy import deploy
from serving.model_folder import checked_model, find_model
from serving.record import deployment_of
from stages.artifact import Store
from tests.serving.conftest import Gateway, fake_model, start_fake, stop_gateway, wait_for
from tests.support import ObjectStore


@pytest.fixture
def server(object_store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    """The session's S3 server, brought back at the end; copies of what lies there go below `tmp_path`."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield object_store
    object_store.stop()
    object_store.start()


@pytest.fixture
def remote(server: ObjectStore, bucket: str) -> Store:
    """A store in a bucket of its own."""
    return Store(f"{bucket}/headwater")


@pytest.fixture
def gateway(remote: Store, tmp_path: Path) -> Iterator[Gateway]:
    found = start_fake(remote, tmp_path / "state")
    yield found
    stop_gateway(found)


def test_what_is_served_goes_on_while_the_store_is_away(gateway: Gateway, remote: Store, server: ObjectStore) -> None:
    deploy(deployment_of(fake_model(remote, "a"), "toy", 1), remote, gateway.url, timeout=120)
    second = deployment_of(fake_model(remote, "b"), "toy", 2)
    server.stop()
    wait_for(lambda: gateway_status(gateway.url).record_error, 60)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    os.kill(gateway.engine_pid(), signal.SIGKILL)  # it is started again from the local copy
    wait_for(lambda: (status := gateway_status(gateway.url)).serving and status.engines[0].starts == 2)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"

    server.start()
    wait_for(lambda: gateway_status(gateway.url).record_error is None, 60)
    deploy(second, remote, gateway.url, timeout=120)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"


def test_the_gateway_ends_while_the_store_is_away(gateway: Gateway, server: ObjectStore) -> None:
    server.stop()
    wait_for(lambda: gateway_status(gateway.url).record_error, 60)
    assert gateway.process.poll() is None
    stop_gateway(gateway)
    assert gateway.process.returncode == 0


def test_a_damaged_copy_is_fetched_again(remote: Store) -> None:
    entry = deployment_of(fake_model(remote, "a"), "toy", 1)
    artifact = find_model(remote, entry)
    weights = checked_model(artifact).path / "model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right.replace(b"a", b"b"))
    assert checked_model(artifact).path / "model.safetensors" == weights
    assert weights.read_bytes() == right
