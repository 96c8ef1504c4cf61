"""The probe of a store: local files, an object store, and stores that fail."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from infra.doctor import store
from infra.doctor.result import run_command
from stages.store import Store


def test_the_probe_of_a_local_store_leaves_nothing_behind(tmp_path: Path) -> None:
    root = tmp_path / "store"
    found = store.probe(str(root))
    assert (
        store.interpret(found)[0].state == "ok"
        and "does not exist yet" in found.note
        and list(tmp_path.iterdir()) == []
    )
    root.mkdir()
    found = store.probe(str(root))
    assert [check.state for check in store.interpret(found)] == ["ok", "ok"] and list(root.iterdir()) == []


def test_leftovers_of_a_doctor_that_was_killed_are_removed(tmp_path: Path) -> None:
    folder = tmp_path / store.FOLDER
    folder.mkdir()
    (folder / "1700000000-1-ab").touch()
    fresh = folder / f"{time.time():.0f}-1-ab"
    fresh.touch()
    assert not store.probe(str(tmp_path)).error
    assert list(folder.iterdir()) == [fresh], "the probe of another doctor"


@pytest.mark.parametrize(
    ("found", "state", "words"),
    [
        (store.Probe("relative", "'relative' is a relative path"), "problem", "absolute path"),
        (store.Probe("/x", "Read-only file system"), "problem", "HEADWATER_STORE"),
        (store.Probe("s3://b", "Unable to locate credentials"), "problem", "AWS_ACCESS_KEY_ID"),
        (store.Probe("s3://b", "The specified bucket does not exist"), "problem", "create the bucket"),
        (store.Probe("s3://b", "Could not connect to the endpoint URL"), "problem", "AWS_ENDPOINT_URL"),
        (store.Probe("s3://b", "it timed out after 20 s"), "problem", "AWS_ENDPOINT_URL"),
        (store.Probe("x://b", "Protocol not known: x"), "problem", "fsspec"),
        (store.Probe("s3://b", exclusive=False), "problem", "created twice"),
        (store.Probe("s3://b", skew=-300.0), "warning", "300 s behind"),
        (store.Probe("s3://b", skew=2.0), "ok", "within 30 s"),
    ],
)
def test_what_a_probe_means(found: store.Probe, state: str, words: str) -> None:
    last = store.interpret(found)[-1]
    assert last.state == state and words in last.found + last.remedy


def test_a_store_that_creates_an_object_twice_is_detected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def overwrite(self: Store, name: str, data: bytes) -> bool:
        self.put(name, data)
        return True

    monkeypatch.setattr(Store, "create", overwrite)
    assert not store.probe(str(tmp_path)).exclusive
    assert list(tmp_path.iterdir()) == []


def test_a_probe_that_fails_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Store, name: str) -> bytes:
        raise OSError("input/output error")

    monkeypatch.setattr(Store, "read", broken)
    assert "input/output error" in store.probe(str(tmp_path)).error
    assert list(tmp_path.iterdir()) == []


def test_an_object_store(monkeypatch: pytest.MonkeyPatch) -> None:
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        for name, value in {
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_ACCESS_KEY_ID": "a",
            "AWS_SECRET_ACCESS_KEY": "b",
            "AWS_DEFAULT_REGION": "us-east-1",
        }.items():
            monkeypatch.setenv(name, value)
        import boto3

        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket")
        checks = store.check_store("s3://bucket/store", run_command)
        assert [check.state for check in checks] == ["ok", "ok"], checks
        assert "Contents" not in client.list_objects_v2(Bucket="bucket")
        assert "create the bucket" in store.check_store("s3://none/store", run_command)[0].remedy
    finally:
        server.stop()


def test_the_probe_of_a_dead_object_store_times_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # accepts, and never answers
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        [check] = store.check_store("s3://bucket/store", run_command)
    assert check.state == "problem" and "AWS_ENDPOINT_URL" in check.remedy
