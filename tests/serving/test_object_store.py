"""The gateway over an object store: real S3 requests to moto's server, which goes away and comes back."""

from __future__ import annotations

import os
import secrets
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from conftest import Gateway, fake_model, start_fake, stop_gateway, wait_for
from moto.server import ThreadedMotoServer

from serving.client import complete, gateway_status
from serving.deploy import deploy
from serving.model_folder import checked_model, find_model
from serving.record import deployment_of
from stages.artifact import Store
from tests.support import free_port


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ThreadedMotoServer]:
    """An S3 server that the environment points at; copies of what lies there go below `tmp_path`."""
    port = free_port()
    found = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
    found.start()
    names = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_DEFAULT_REGION": "us-east-1", "AWS_MAX_ATTEMPTS": "1"}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    yield found
    found.stop()


@pytest.fixture
def remote(server: ThreadedMotoServer) -> Store:
    """A store in a bucket of its own. fsspec would hand out an earlier test's file system, with its endpoint, again."""
    bucket = f"models-{secrets.token_hex(4)}"
    Store(f"s3://{bucket}").fs.clear_instance_cache()
    store = Store(f"s3://{bucket}/headwater")
    store.fs.mkdir(bucket)
    return store


@pytest.fixture
def gateway(remote: Store, tmp_path: Path) -> Iterator[Gateway]:
    found = start_fake(remote, tmp_path / "state")
    yield found
    stop_gateway(found)


def test_what_is_served_goes_on_while_the_store_is_away(
    gateway: Gateway, remote: Store, server: ThreadedMotoServer
) -> None:
    deploy(deployment_of(fake_model(remote, "a"), "toy", 1), remote, gateway.url, timeout=30)
    second = deployment_of(fake_model(remote, "b"), "toy", 2)
    server.stop()
    wait_for(lambda: gateway_status(gateway.url).record_error, 60)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"
    os.kill(gateway.engine_pid(), signal.SIGKILL)  # it is started again from the local copy
    wait_for(lambda: (status := gateway_status(gateway.url)).serving and status.engines[0].starts == 2)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@1 hi"

    server.start()
    wait_for(lambda: gateway_status(gateway.url).record_error is None, 60)
    deploy(second, remote, gateway.url, timeout=30)
    assert complete(gateway.url, gateway.key, "toy", "hi") == "toy@2 hi"


def test_the_gateway_ends_while_the_store_is_away(gateway: Gateway, server: ThreadedMotoServer) -> None:
    server.stop()
    wait_for(lambda: gateway_status(gateway.url).record_error, 60)
    stop_gateway(gateway)
    server.start()


def test_a_damaged_copy_is_fetched_again(remote: Store) -> None:
    entry = deployment_of(fake_model(remote, "a"), "toy", 1)
    artifact = find_model(remote, entry)
    weights = checked_model(artifact).path / "model.safetensors"
    right = weights.read_bytes()
    weights.write_bytes(right.replace(b"a", b"b"))
    assert checked_model(artifact).path / "model.safetensors" == weights
    assert weights.read_bytes() == right
