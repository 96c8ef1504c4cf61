"""Running a stage: built once, then cached, never partial, one writer, separate runs where asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.store import (
    ArtifactWriter,
    Config,
    EventLog,
    LeaseHeldError,
    Stage,
    Store,
    StoreError,
    all_artifacts,
    by_digest,
    list_refs,
    load,
    read_ref,
    runtime_field,
    write_ref,
)
from stages.store import lease as lease_module
from stages.store import stage as stage_module
from stages.store.lease import Holder, Lease
from tests.support import ObjectStore, damaged_files


class Toy(Config):
    text: str = "hello"
    """What is written."""
    workers: int = runtime_field(1)
    """Workers."""


calls: list[str] = []


def build(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    calls.append(config.text)
    if config.text == "fail":
        raise RuntimeError("on purpose")
    writer.put("data/text.txt", config.text.encode())
    writer.counts["characters"] = len(config.text)


toy = Stage("toy", 1, build)
runs = Stage("runs", 1, build, separate_runs=True)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "POLL_SECONDS", 0.05)


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    calls.clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Store(tmp_path / "store" if request.param == "file" else request.getfixturevalue("bucket") + "/store")


@pytest.fixture
def local_store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_built_once_then_cached(store: Store) -> None:
    first = toy.run(Toy(), {}, store)
    second = toy.run(Toy(workers=8), {}, store)
    assert calls == ["hello"]
    assert first.manifest == second.manifest
    assert first.read("data/text.txt") == b"hello"
    assert first.local("data/text.txt").read_text() == "hello"
    assert [a.id for a in all_artifacts(store)] == [first.id]
    assert not damaged_files(first)


def test_inputs_and_config_name_the_plan(store: Store) -> None:
    first = toy.run(Toy(), {}, store)
    other = toy.run(Toy(text="x"), {}, store)
    downstream = toy.run(Toy(), {"in": other}, store)
    assert len({first.fingerprint, other.fingerprint, downstream.fingerprint}) == 3
    assert first.digest == downstream.digest, "the same bytes have the same digest, whatever the inputs were"
    assert downstream.manifest.inputs == {"in": other.digest}


def test_a_failed_stage_leaves_no_artifact_and_can_be_run_again(store: Store) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        toy.run(Toy(text="fail"), {}, store)
    plan = toy.plan(Toy(text="fail"), {}, store)
    assert load(store, plan.folder) is None
    events, _ = EventLog(store, plan.folder).read()
    assert [event["type"] for event in events] == ["started", "failed"]
    assert all("events" in name for name in store.list(plan.folder)), "no scratch files, no lease"


def test_a_folder_without_manifest_is_not_an_artifact(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    store.put(f"{plan.folder}/data/text.txt", b"half")
    assert plan.done is None
    assert toy.run(Toy(), {}, store).read("data/text.txt") == b"hello"


def test_missing_and_changed_files_are_found(store: Store) -> None:
    artifact = toy.run(Toy(), {}, store)
    store.put(f"{artifact.folder}/data/text.txt", b"hellO")
    artifact.check_sizes()
    assert damaged_files(artifact) == ["data/text.txt"]
    store.remove(f"{artifact.folder}/data/text.txt")
    with pytest.raises(StoreError, match=r"data/text\.txt is missing"):
        toy.run(Toy(), {}, store)


def test_one_writer_at_a_time(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    with Lease(store, plan.folder), pytest.raises(LeaseHeldError, match=str(os.getpid())):
        toy.run(Toy(), {}, store)
    assert toy.run(Toy(), {}, store).digest


def test_the_lease_of_a_dead_process_is_taken_over(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    script = (
        "import os, signal\n"
        "from stages.store import Store\nfrom stages.store.lease import Lease\n"
        f"Lease(Store({store.url!r}), {plan.folder!r}).__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -9
    assert store.exists(f"{plan.folder}/lease-0")
    artifact = toy.run(Toy(), {}, store)
    assert not [name for name in store.list(artifact.folder) if "lease-" in name]


def test_a_lease_without_heartbeat_on_another_machine_is_taken_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.1)
    plan = toy.plan(Toy(), {}, store)
    record = {"pid": 1, "host": "elsewhere", "beat": time.time()}
    store.put(f"{plan.folder}/lease-3", json.dumps(record).encode())
    with pytest.raises(LeaseHeldError, match="elsewhere"):
        toy.run(Toy(), {}, store)
    store.put(f"{plan.folder}/lease-3", json.dumps(record | {"beat": time.time() - 3600}).encode())
    assert toy.run(Toy(), {}, store).digest


@pytest.mark.parametrize("garbage", [b"{}", b"[]", b"not JSON", b'{"pid": "x", "host": 1, "beat": 2}'])
def test_a_lease_that_is_garbage_is_named(garbage: bytes, local_store: Store) -> None:
    plan = toy.plan(Toy(), {}, local_store)
    local_store.put(f"{plan.folder}/lease-0", garbage)
    with pytest.raises(StoreError, match="lease-0"):
        toy.run(Toy(), {}, local_store)


def test_runs_have_folders_of_their_own_and_unfinished_ones_resume(store: Store) -> None:
    first = runs.run(Toy(), {}, store)
    assert first.folder.startswith(f"runs/{first.fingerprint[:16]}-")
    assert runs.run(Toy(), {}, store).folder == first.folder, "a finished run is skipped"
    forced = runs.run(Toy(), {}, store, runs.plan(Toy(), {}, store, force_new_run=True))
    assert forced.folder != first.folder
    assert forced.manifest.run != first.manifest.run
    unfinished = runs.plan(Toy(text="fail"), {}, store)
    with pytest.raises(RuntimeError):
        runs.run(Toy(text="fail"), {}, store, unfinished)
    assert runs.plan(Toy(text="fail"), {}, store).folder == unfinished.folder


def test_refs_point_at_artifacts(store: Store) -> None:
    artifact = toy.run(Toy(), {}, store)
    assert read_ref(store, "biomed", "toy") is None
    write_ref(store, "biomed", "toy", artifact)
    found = read_ref(store, "biomed", "toy")
    assert found is not None and found.digest == artifact.digest
    assert list_refs(store) == {"biomed/toy": artifact.digest}
    store.remove(artifact.folder)
    with pytest.raises(StoreError, match="missing or has changed"):
        read_ref(store, "biomed", "toy")


def test_artifacts_are_found_by_the_start_of_their_digest(store: Store) -> None:
    artifact = toy.run(Toy(), {}, store)
    assert by_digest(store, artifact.digest[:8]).folder == artifact.folder
    assert by_digest(store, f"toy/{artifact.digest[:8]}").folder == artifact.folder
    with pytest.raises(StoreError, match="no artifact"):
        by_digest(store, "toy/ffffffffffff")


@pytest.mark.parametrize("kind", ["file", "memory"])
def test_events_are_read_from_an_offset(kind: str, tmp_path: Path) -> None:
    log = EventLog(Store(tmp_path / "s" if kind == "file" else f"memory://{tmp_path.name}"), "toy/x")
    log.emit("one", value=1)
    log.flush()
    assert log.end_offset() > 0
    events, offset = log.read()
    assert [event["type"] for event in events] == ["one"]
    log.emit("two", durable=True, text="ü\n")
    log.progress(1, 2, "files")
    log.flush()
    events, offset = log.read(offset)
    assert [event["type"] for event in events] == ["two", "progress"]
    assert events[0]["text"] == "ü\n"
    assert log.read(offset) == ([], offset)


def test_an_event_that_is_half_written_waits(local_store: Store) -> None:
    log = EventLog(local_store, "toy/x")
    log.emit("one")
    with local_store.local_path("toy/x/events.jsonl").open("ab") as file:
        file.write(b'{"type": "tw')
    events, offset = log.read()
    assert [event["type"] for event in events] == ["one"]
    with local_store.local_path("toy/x/events.jsonl").open("ab") as file:
        file.write(b'o"}\n')
    assert [event["type"] for event in log.read(offset)[0]] == ["two"]


def test_a_line_that_a_full_disk_cut_off_spoils_no_other(local_store: Store) -> None:
    log = EventLog(local_store, "toy/x")
    log.emit("one")
    with local_store.local_path("toy/x/events.jsonl").open("ab") as file:
        file.write(b'{"type": "tw')
    log.emit("three")
    events, _ = log.read()
    assert [event["type"] for event in events] == ["one", "warning", "three"]
    assert "only partly written" in events[1]["message"]


def test_a_damaged_object_is_not_taken_into_the_cache(bucket: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(bucket)
    artifact = toy.run(Toy(), {}, store)
    store.put(f"{artifact.folder}/data/text.txt", b"hellO")
    with pytest.raises(StoreError, match=rf"{bucket}/toy/.*/data/text\.txt is damaged"):
        artifact.local("data/text.txt")
    store.put(f"{artifact.folder}/data/text.txt", b"hello")
    assert artifact.local("data/text.txt").read_text() == "hello"


def test_a_second_process_waits_and_finds_it_done(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    holder = Lease(store, plan.folder)
    assert holder.acquire() is None
    seen = []

    def waiting(by: Holder) -> None:
        seen.append(by)
        if len(seen) == 2:  # the other one finishes
            toy._build(Toy(), {}, store, plan, holder)
            holder.__exit__(None, None, None)

    artifact = toy.run(Toy(), {}, store, on_wait=waiting)
    assert artifact.read("data/text.txt") == b"hello"
    assert calls == ["hello"], "built once"
    assert [by.pid for by in seen] == [os.getpid()] * 2


def test_a_second_process_takes_over_when_the_first_dies(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    script = (
        "import sys, time\nfrom stages.store import Store\nfrom stages.store.lease import Lease\n"
        f"Lease(Store({store.url!r}), {plan.folder!r}).__enter__()\nprint('held', flush=True)\ntime.sleep(60)\n"
    )
    first = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert first.stdout is not None and first.stdout.readline() == b"held\n"

    def waiting(by: Holder) -> None:
        assert by.pid == first.pid
        first.kill()
        first.wait()

    assert toy.run(Toy(), {}, store, on_wait=waiting).digest
    assert calls == ["hello"]


def test_a_process_that_lost_its_lease_does_not_commit(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A suspended process continues after another one took its work over."""
    plan = toy.plan(Toy(), {}, store)
    record = {"pid": 1, "host": "elsewhere", "beat": time.time()}

    def build_and_lose(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
        build(config, inputs, writer)
        store.put(f"{plan.folder}/lease-1", json.dumps(record).encode())

    with pytest.raises(LeaseHeldError, match="process 1 on elsewhere took over the lease"):
        Stage("toy", 1, build_and_lose).run(Toy(), {}, store)
    assert load(store, plan.folder) is None
    assert store.exists(f"{plan.folder}/lease-1"), "the other's lease stays"


def test_a_lease_whose_clock_is_wrong_is_watched_before_it_is_taken(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(lease_module, "HEARTBEAT_SECONDS", 0.3)
    plan = toy.plan(Toy(), {}, store)
    record = {"pid": 1, "host": "elsewhere", "beat": time.time() - 3600}
    name = f"{plan.folder}/lease-0"
    store.put(name, json.dumps(record).encode())
    beating = threading.Event()

    def beat() -> None:
        while not beating.wait(0.1):
            record["beat"] += 0.1
            store.put(name, json.dumps(record).encode())

    thread = threading.Thread(target=beat)
    thread.start()
    try:
        with pytest.raises(LeaseHeldError, match="elsewhere"):
            toy.run(Toy(), {}, store)
    finally:
        beating.set()
        thread.join()
    assert toy.run(Toy(), {}, store).digest, "it beats no more"


def test_events_wait_while_the_store_is_away(object_store: ObjectStore, bucket: str) -> None:
    log = EventLog(Store(bucket), "toy/x")
    log.emit("one", durable=True)
    object_store.stop()
    try:
        log.emit("two")
        with pytest.raises(StoreError):
            log.emit("three", durable=True)
    finally:
        object_store.start()
    log.emit("four", durable=True)
    assert [event["type"] for event in log.read()[0]] == ["one", "two", "three", "four"]
