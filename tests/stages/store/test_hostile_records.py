"""Records that whoever may write to the store has made: none writes, truncates or deletes a file outside of cache and
store, and each is read or refused with a message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from serving.model_folder import find_model
from serving.record import RECORD, Deployment, DeploymentRecord, find_record
from stages.store import (
    Artifact,
    Config,
    EventLog,
    FileEntry,
    Stage,
    Store,
    StoreError,
    digest,
    list_refs,
    load,
    read_ref,
)
from stages.store.artifact import ArtifactWriter
from stages.store.gc import plan_collection
from stages.store.lease import Lease
from stages.store.manifest import parse_files
from stages.store.names import check_distinct, check_file_name, check_file_path, check_folder
from stages.store.reach import ref_roots
from stages.store.verify import plan_verification, verify
from tests.stages.store.hostile import PATHS, check_reader
from tests.support import examples

Reader = tuple[Any, Callable[[bytes], object], list[Path]]


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This user's cache folder."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "headwater"


class Toy(Config):
    text: str = "hello"
    """What is written."""


def build(config: Toy, inputs: Any, writer: ArtifactWriter) -> None:
    writer.put("a/b.txt", config.text.encode())
    writer.put("weights/config.json", b"{}")


toy = Stage("toy", 1, build)


def finished(folder: Path) -> tuple[Store, Artifact]:
    """An artifact on an object store, so that reading it writes to the cache."""
    store = Store(f"memory://{folder}")
    return store, toy.run(Toy(), {}, store)


def manifests(folder: Path) -> Reader:
    store, artifact = finished(folder)
    name = f"{artifact.folder}/manifest.json"

    def read(data: bytes) -> None:
        store.put(name, data)
        found = load(store, artifact.folder)
        assert found is not None
        found.local()

    def read_with_its_digest(data: bytes) -> None:
        """The attacker computes the digest, too."""
        try:
            record = json.loads(data)
            record["digest"] = digest([FileEntry.model_construct(**entry) for entry in record["files"]])
            data = json.dumps(record).encode()
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            pass  # as it is
        read(data)

    return json.loads(store.read(name)), read_with_its_digest, [folder / "cache"]


def local_manifests(folder: Path) -> Reader:
    """What verification and collection read on local files."""
    store = Store(folder / "store")
    artifact = toy.run(Toy(), {}, store)
    name = f"{artifact.folder}/manifest.json"

    def read(data: bytes) -> None:
        store.put(name, data)
        for _ in verify(store, plan_verification(store, ref_roots(store)), lambda count: None):
            pass
        plan_collection(store)

    return json.loads(store.read(name)), read, [folder / "store"]


def refs(folder: Path) -> Reader:
    store, artifact = finished(folder)

    def read(data: bytes) -> None:
        store.put("refs/biomed/toy", data)
        ref_roots(store)
        list_refs(store)
        read_ref(store, "biomed", "toy")

    record = {"folder": artifact.folder, "digest": artifact.digest, "time": "2026-01-01"}
    return record, read, [folder / "cache"]


def deployments(folder: Path) -> Reader:
    store, artifact = finished(folder)
    entry = Deployment(name="biomed", version="1", model_folder=artifact.folder, model_digest=artifact.digest)

    def read(data: bytes) -> None:
        store.put(RECORD, data)
        record = find_record(store)
        assert record is not None
        for deployment in (record.stable, record.canary):
            if deployment:
                find_model(store, deployment).local(deployment.path)

    return DeploymentRecord(stable=entry, canary=entry).model_dump(mode="json"), read, [folder / "cache"]


def leases(folder: Path) -> Reader:
    store = Store(folder / "store")
    target = f"toy/{'0' * 16}"
    lease = Lease(store, target)
    lease.heartbeat_seconds = lease.stale_seconds = 0.0

    def read(data: bytes) -> None:
        store.remove(target)
        store.put(f"{target}/lease-0", data)
        holder = lease.holder()
        if holder:
            str(holder)
            lease.is_free()
        if lease.acquire() is None:
            lease.__exit__(None, None, None)

    record = {"pid": 1, "host": "elsewhere", "space": "x", "token": "0", "beat": 1.0}
    return record, read, [folder / "store"]


def checkpoints(folder: Path) -> Reader:
    """Lists of files beside an artifact's own: a checkpoint's manifest, a run's outcome."""
    store = Store(folder / "store")
    artifact = toy.run(Toy(), {}, store)
    name = f"{artifact.folder}/checkpoints/step-00000001/manifest.json"

    def read(data: bytes) -> None:
        store.put(name, data)
        for _ in verify(store, plan_verification(store, ref_roots(store)), lambda count: None):
            pass
        parse_files(store.read_json(name), name)

    entries = [{"path": path, "bytes": 1, "sha256": "0" * 64} for path in (".metadata", "__0_0.distcp")]
    return {"step": 1, "world": 1, "files": entries}, read, [folder / "store"]


READERS: dict[str, Callable[[Path], Reader]] = {
    "manifests": manifests,
    "manifests of a local store": local_manifests,
    "refs": refs,
    "deployment records": deployments,
    "leases": leases,
    "checkpoints": checkpoints,
}


@pytest.mark.parametrize("name", READERS)
def test_no_mutation_of_a_record_writes_elsewhere_or_ends_in_a_traceback(
    name: str, tmp_path: Path, cache: Path
) -> None:
    refused, accepted = check_reader(*READERS[name](tmp_path), 4 * examples(50).max_examples)
    assert refused > accepted > 0


REFUSED = [
    "/abs", "..", "../x", "a/../../x", "", ".", "a//b", "a/", "C:\\x", "C:/x", "..\\x", "a\\b", "x\0y", "x\ny",
    "x\x1b[2J", "x\u202ey", "\ud800", "x" * 256, "y/" * 600 + "y",
]  # fmt: skip
HARMLESS = ["a", "a/b.c", ".metadata", "St. Mary's/x", "x.", "a b", "é", "日本/x", "y" * 255, "..x", "a/...", "xx:y"]


@pytest.mark.parametrize("path", REFUSED)
def test_paths_that_leave_a_folder_or_mean_something_else_elsewhere_are_refused(path: str) -> None:
    for refuse in (check_file_path, check_file_name, check_folder):
        with pytest.raises(ValueError):
            refuse(path)


@pytest.mark.parametrize("path", HARMLESS)
def test_plain_paths_are_accepted(path: str) -> None:
    assert check_file_path(path) == path


@pytest.mark.parametrize("paths", [["a", "a"], ["a", "a/b"], ["x/y/z", "x"], ["é", "e\u0301"]])
def test_files_that_cannot_lie_beside_each_other_are_refused(paths: list[str]) -> None:
    with pytest.raises(ValueError, match="listed"):
        check_distinct(paths)
    check_distinct(["a", "A", "a.b/c", "a.b/d"])


@pytest.mark.parametrize("path", [path for path in PATHS if path in REFUSED])
def test_a_writer_cannot_list_a_path_that_readers_refuse(path: str, tmp_path: Path) -> None:
    writer = ArtifactWriter(Store(tmp_path), f"toy/{'0' * 16}", "toy", 1, "0" * 32, {}, {})
    with pytest.raises(ValueError):
        writer.put(path, b"x")


def test_a_manifest_cannot_put_its_files_among_those_of_another(tmp_path: Path, cache: Path) -> None:
    store, artifact = finished(tmp_path)
    other = toy.run(Toy(text="hallo"), {}, store)
    record = json.loads(store.read(f"{other.folder}/manifest.json")) | {"digest": artifact.digest}
    store.put(f"{other.folder}/manifest.json", json.dumps(record).encode())
    found = load(store, other.folder)
    assert found is not None
    with pytest.raises(StoreError, match="digest does not match its list of files"):
        found.local()
    assert artifact.local("a/b.txt").read_text() == "hello"


def test_links_that_lead_out_of_store_or_cache_are_not_followed(tmp_path: Path, cache: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "events.jsonl").write_text("mine")
    store = Store(tmp_path / "store")
    store.put("refs/x/y", b"")
    (tmp_path / "store" / "toy").symlink_to(outside)
    (tmp_path / "store" / "log").mkdir()
    (tmp_path / "store" / "log" / "events.jsonl").symlink_to(outside / "events.jsonl")
    source = tmp_path / "source"
    source.write_text("x")
    for write in (
        lambda: store.put("toy/x", b"x"),
        lambda: store.create("toy/x", b"x"),
        lambda: store.put_file(source, "toy/x"),
        lambda: store.rewrite("toy/events.jsonl", b"x", lambda data: True),
        lambda: store.remove("toy/events.jsonl"),
        lambda: EventLog(store, "log").emit("x"),
        lambda: store.local_path("toy/x"),
        lambda: toy.run(Toy(), {}, store),
    ):
        with pytest.raises(StoreError, match="outside of"):
            write()
    store.remove("toy")
    assert not (tmp_path / "store" / "toy").is_symlink(), "the link itself can be removed"
    _, artifact = finished(tmp_path)
    fetched = cache / "artifacts" / artifact.digest
    fetched.mkdir(parents=True)
    (fetched / "a").symlink_to(outside)
    with pytest.raises(StoreError, match="outside of"):
        artifact.local()
    assert [path.name for path in outside.iterdir()] == ["events.jsonl"]
    assert (outside / "events.jsonl").read_text() == "mine"


def test_names_that_look_like_patterns_are_names(bucket: str) -> None:
    store = Store(bucket)
    for name in ("x/a", "x/b", "x/*", "x/[ab]/c"):
        store.put(name, name.encode())
    store.remove("x/*")
    assert store.list("x") == ["x/[ab]/c", "x/a", "x/b"]
    assert store.read_all(["x/[ab]/c"]) == [b"x/[ab]/c"]
    store.remove("x/[ab]")
    assert store.list("x") == ["x/a", "x/b"]


@pytest.mark.parametrize("name", ["lease-²", "lease-007", "lease-9" + "9" * 300, "lease-", "lease--1"])
def test_a_name_that_is_almost_a_leases_is_none(name: str, bucket: str) -> None:
    store = Store(bucket)
    store.put(f"toy/x/{name}", b"?")
    with Lease(store, "toy/x") as lease:
        lease.confirm()
    assert store.read(f"toy/x/{name}") == b"?", "what is no lease is not removed with it"


@pytest.mark.parametrize("broken", ["folder", "link"])
def test_what_stands_in_a_leases_place_is_named(broken: str, tmp_path: Path) -> None:
    store, folder = Store(tmp_path), tmp_path / "toy" / "x"
    folder.mkdir(parents=True)
    if broken == "folder":
        (folder / "lease-0").mkdir()
    else:
        (folder / "lease-0").symlink_to("nowhere")
    with pytest.raises(StoreError, match=r"lease-0 is not a lease"):
        Lease(store, "toy/x").acquire()
