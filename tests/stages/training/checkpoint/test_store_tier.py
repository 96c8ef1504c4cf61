"""Checkpoints on their way to an object store that is slow or away: the training goes on, and what is whole stays."""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stages.store import Store, StoreError
from stages.training.checkpoint import upload as upload_module
from stages.training.checkpoint.finding import committed_checkpoints, step_folder
from stages.training.checkpoint.format import INDEX, MANIFEST, STATE
from tests.stages.training.checkpoint.small import FOLDER, OPTIMIZER, WEIGHTS, Small, flip, folder_of, restored
from tests.support import ObjectStore


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """This machine's disk."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(upload_module, "_PAUSES", (0.01, 0.01))
    return tmp_path / "cache"


class GatedStore(Store):
    """An object store whose uploads wait until the test lets them, and which takes down what was written."""

    def __init__(self, url: str):
        super().__init__(url)
        self.open_gate = threading.Event()
        self.names: list[str] = []

    def copy_in(self, local: Path, name: str) -> None:
        self.open_gate.wait()
        super().copy_in(local, name)
        self.names.append(name)

    def put(self, name: str, data: bytes) -> None:
        super().put(name, data)
        self.names.append(name)


@pytest.fixture
def slow(tmp_path: Path) -> GatedStore:
    return GatedStore(f"memory://{tmp_path}")


def _steps(store: Store) -> list[int]:
    return [int(name.rsplit("-", 1)[1]) for name in committed_checkpoints(store, FOLDER)]


def _begin(store: Store, **config: Any) -> Small:
    run = Small(store, **config)
    run.restore()
    return run


def _save(run: Small, step: int) -> None:
    """As the training does: begun at one boundary, committed on disk at the next."""
    run.save(step, wait=False)
    run.checkpoints.commit()


def _boundaries(run: Small) -> None:
    """The boundaries between steps, until nothing is on its way any more."""
    deadline = time.monotonic() + 60
    while not run.checkpoints.uploads.empty and time.monotonic() < deadline:
        if run.checkpoints.finished_upload:
            run.checkpoints.commit_upload()
        time.sleep(0.005)
    assert run.checkpoints.uploads.empty


def test_the_manifest_comes_last(slow: GatedStore) -> None:
    run = _begin(slow)
    slow.open_gate.set()
    run.save(1)
    run.leave()
    folder = f"{FOLDER}/{step_folder(1)}"
    assert slow.names[-1] == f"{folder}/{MANIFEST}"
    assert sorted(slow.names[:-1]) == sorted(f"{folder}/{name}" for name in (WEIGHTS, OPTIMIZER, INDEX, STATE))
    assert _steps(slow) == [1]


def test_one_that_waits_for_a_slow_store_is_replaced_and_the_one_under_way_arrives(slow: GatedStore) -> None:
    run = _begin(slow, keep=9)
    for step in (1, 2, 3, 4):
        _save(run, step)
    assert [message.split(":")[-1] for message in run.messages("warning")] == [
        " the store is slow, so it stays on this machine's disk"
    ] * 2
    assert ["step-00000002" in text or "step-00000003" in text for text in run.messages("warning")] == [True] * 2
    slow.open_gate.set()
    _boundaries(run)
    run.leave()
    assert _steps(slow) == [1, 4] and len(run.messages("warning")) == 2
    shutil.rmtree(run.checkpoints.disk)
    assert restored(slow)[0] == 4


def test_the_newest_is_found_on_disk_while_the_store_has_an_older_one(slow: GatedStore) -> None:
    run = _begin(slow)
    slow.open_gate.set()
    run.save(1)
    slow.open_gate.clear()
    _save(run, 2)
    run.leave()
    step, again = restored(Store(slow.url))
    assert step == 2
    flip(folder_of(again.checkpoints.disk, 2) / WEIGHTS)
    step, again = restored(Store(slow.url))
    assert step == 1 and again.refused == {f"step-00000002/{WEIGHTS}": "not what was written"}
    slow.open_gate.set()
    _boundaries(run)


def test_damaged_later_ones_on_disk_do_not_crowd_out_the_one_that_is_uploaded(slow: GatedStore) -> None:
    slow.open_gate.set()
    run = _begin(slow)
    run.save(1)
    slow.open_gate.clear()
    _save(run, 3)
    _save(run, 4)
    run.leave()
    for step in (3, 4):
        flip(folder_of(run.checkpoints.disk, step) / WEIGHTS)
    store = Store(slow.url)
    again = _begin(store)
    again.save(2)
    again.leave()
    assert _steps(store) == [1, 2] and folder_of(again.checkpoints.disk, 2).is_dir()
    slow.open_gate.set()


def test_a_failed_upload_does_not_count_among_those_that_are_kept(
    slow: GatedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow.open_gate.set()
    run = _begin(slow, keep=2)
    run.save(1)
    with monkeypatch.context() as patch:

        def refuse(name: str, data: bytes) -> None:
            raise StoreError("the manifest is refused")

        patch.setattr(slow, "put", refuse)
        _save(run, 2)
        _boundaries(run)
    assert "the manifest is refused" in run.messages("warning")[0]
    run.save(3)
    run.leave()
    assert _steps(slow) == [1, 3]


@pytest.fixture
def away(object_store: ObjectStore, bucket: str) -> Iterator[ObjectStore]:
    """The S3 server, which is there again afterwards."""
    yield object_store
    object_store.stop()
    object_store.start()


def test_a_store_that_is_away_does_not_end_the_training(away: ObjectStore, bucket: str) -> None:
    store = Store(f"{bucket}/store")
    run = _begin(store)
    run.save(1)
    away.stop()
    _save(run, 2)
    _boundaries(run)
    assert [step_folder(2) in text and "the training goes on" in text for text in run.messages("warning")] == [True]
    with pytest.raises(StoreError, match=r"step-00000003.*cannot"):
        run.save(3)
    away.start()
    assert _steps(store) == [1]
    run.save(4)
    run.leave()
    assert _steps(store) == [1, 4]
    shutil.rmtree(run.checkpoints.disk)
    assert restored(store)[0] == 4


@pytest.mark.parametrize("damage", ["missing", "flipped", "truncated"])
@pytest.mark.parametrize("file", [WEIGHTS, INDEX, STATE])
def test_a_damaged_file_in_the_store_leads_to_the_one_before(tmp_path: Path, file: str, damage: str) -> None:
    store = Store(f"memory://{tmp_path}")
    run = _begin(store)
    run.save(1)
    run.save(2)
    run.leave()
    shutil.rmtree(run.checkpoints.disk)
    name = f"{FOLDER}/{step_folder(2)}/{file}"
    content = store.read(name)
    store.remove(name)
    if damage != "missing":
        half = len(content) // 2
        rest = bytes([content[half] ^ 1]) + content[half + 1 :] if damage == "flipped" else b""
        store.put(name, content[:half] + rest)
    step, again = restored(store)
    assert step == 1 and [*again.refused] == [f"step-00000002/{file}"]


def test_a_checkpoint_in_another_s_folder_of_the_store_is_refused(tmp_path: Path) -> None:
    store = Store(f"memory://{tmp_path}")
    run = _begin(store)
    run.save(1)
    run.leave()
    shutil.rmtree(run.checkpoints.disk)
    for name in (WEIGHTS, OPTIMIZER, INDEX, STATE, MANIFEST):
        store.put(f"{FOLDER}/{step_folder(2)}/{name}", store.read(f"{FOLDER}/{step_folder(1)}/{name}"))
    step, again = restored(store)
    assert step == 1 and again.refused == {f"step-00000002/{MANIFEST}": "it is of step 1"}
