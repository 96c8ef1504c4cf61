"""Running a stage: made once, skipped after, never half there, one writer, runs kept apart where asked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.artifact import (
    ArtifactWriter,
    Config,
    EventLog,
    LeaseHeldError,
    Stage,
    Store,
    StoreError,
    all_artifacts,
    by_digest,
    how,
    list_refs,
    load,
    read_ref,
    write_ref,
)
from stages.artifact.lease import Lease


class Toy(Config):
    text: str = "hello"
    """What is written."""
    workers: int = how(1)
    """Workers."""


calls: list[str] = []


def build(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    calls.append(config.text)
    if config.text == "fail":
        raise RuntimeError("on purpose")
    writer.put("data/text.txt", config.text.encode())
    writer.counts["characters"] = len(config.text)


toy = Stage("toy", 1, build)
runs = Stage("runs", 1, build, keeps_runs=True)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    calls.clear()
    return Store(tmp_path / "store")


def test_made_once_then_skipped(store: Store) -> None:
    first = toy.run(Toy(), {}, store)
    second = toy.run(Toy(workers=8), {}, store)
    assert calls == ["hello"]
    assert first.manifest == second.manifest
    assert first.read("data/text.txt") == b"hello"
    assert first.local("data/text.txt").read_text() == "hello"
    assert [a.id for a in all_artifacts(store)] == [first.id]
    assert not list(first.damaged())


def test_inputs_and_config_name_the_plan(store: Store) -> None:
    first = toy.run(Toy(), {}, store)
    other = toy.run(Toy(text="x"), {}, store)
    downstream = toy.run(Toy(), {"in": other}, store)
    assert len({first.fingerprint, other.fingerprint, downstream.fingerprint}) == 3
    assert first.digest == downstream.digest, "the same bytes have the same digest, whatever they were made from"
    assert downstream.manifest.inputs == {"in": other.digest}


def test_a_failed_stage_leaves_no_artifact_and_can_be_run_again(store: Store) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        toy.run(Toy(text="fail"), {}, store)
    plan = toy.plan(Toy(text="fail"), {}, store)
    assert load(store, plan.folder) is None
    events, _ = EventLog(store, plan.folder).read()
    assert [event["type"] for event in events] == ["started", "failed"]
    assert store.list(plan.folder) == [f"{plan.folder}/events.jsonl"], "no scratch files, no lease"


def test_a_folder_without_manifest_is_not_an_artifact(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    store.put(f"{plan.folder}/data/text.txt", b"half")
    assert plan.done is None
    assert toy.run(Toy(), {}, store).read("data/text.txt") == b"hello"


def test_missing_and_changed_files_are_found(store: Store) -> None:
    artifact = toy.run(Toy(), {}, store)
    path = artifact.local("data/text.txt")
    path.write_bytes(b"hellO")
    artifact.check_sizes()
    assert list(artifact.damaged()) == ["data/text.txt"]
    path.unlink()
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
        "from stages.artifact import Store\nfrom stages.artifact.lease import Lease\n"
        f"Lease(Store({store.root!r}), {plan.folder!r}).__enter__()\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -9
    assert store.exists(f"{plan.folder}/lease-0")
    artifact = toy.run(Toy(), {}, store)
    assert not [name for name in store.list(artifact.folder) if "lease-" in name]


def test_a_lease_without_heartbeat_on_another_machine_is_taken_over(store: Store) -> None:
    plan = toy.plan(Toy(), {}, store)
    record = {"pid": 1, "host": "elsewhere", "beat": time.time()}
    store.put(f"{plan.folder}/lease-3", json.dumps(record).encode())
    with pytest.raises(LeaseHeldError, match="elsewhere"):
        toy.run(Toy(), {}, store)
    store.put(f"{plan.folder}/lease-3", json.dumps(record | {"beat": time.time() - 3600}).encode())
    assert toy.run(Toy(), {}, store).digest


def test_runs_are_kept_apart_and_unfinished_ones_go_on(store: Store) -> None:
    first = runs.run(Toy(), {}, store)
    assert first.folder.startswith(f"runs/{first.fingerprint[:16]}-")
    assert runs.run(Toy(), {}, store).folder == first.folder, "a finished run is skipped"
    again = runs.run(Toy(), {}, store, runs.plan(Toy(), {}, store, again=True))
    assert again.folder != first.folder
    assert again.manifest.run != first.manifest.run
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
    events, offset = log.read()
    assert [event["type"] for event in events] == ["one"]
    log.emit("two", durable=True, text="ü\n")
    log.progress(1, 2, "files")
    events, offset = log.read(offset)
    assert [event["type"] for event in events] == ["two", "progress"]
    assert events[0]["text"] == "ü\n"
    assert log.read(offset) == ([], offset)


def test_an_event_that_is_half_written_waits(store: Store) -> None:
    log = EventLog(store, "toy/x")
    log.emit("one")
    store.append("toy/x/events.jsonl", b'{"type": "tw')
    events, offset = log.read()
    assert [event["type"] for event in events] == ["one"]
    store.append("toy/x/events.jsonl", b'o"}\n')
    assert [event["type"] for event in log.read(offset)[0]] == ["two"]
