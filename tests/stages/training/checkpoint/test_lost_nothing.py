"""After a failure, the newest good checkpoint is still there, and what is damaged is named."""

from __future__ import annotations

import errno
import os
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest

from stages.store import Store, StoreError
from stages.training.checkpoint import finding, layout, memory_tier, places, saving
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.memory_tier import MemoryFolder, leftovers, remove_leftover
from stages.training.checkpoint.upload import _in_daemon_threads
from tests.stages.training.checkpoint.small import FOLDER, WEIGHTS, Small, flip, folder_of, restored, written

pytestmark = pytest.mark.usefixtures("memory")


def _full(*arguments: Any, **more: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _begin(store: Store) -> Small:
    run = Small(store, memory_every_steps=1, keep=9)
    run.restore()
    return run


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "EIO", "EACCES"])
def test_a_manifest_that_cannot_be_read_is_no_half_written_one(
    store: Store, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = written(store, 80, 90)
    path = folder_of(disk, 90) / MANIFEST
    if kind == "link":
        path.rename(path.with_name("moved"))
        path.symlink_to("moved")
    elif kind in ("folder", "pipe"):
        path.unlink()
        path.mkdir() if kind == "folder" else os.mkfifo(path)
    else:
        real = finding._read_manifest

        def fail(asked: Path) -> bytes:
            if asked == path:
                raise OSError(getattr(errno, kind), os.strerror(getattr(errno, kind)), str(path))
            return real(asked)

        monkeypatch.setattr(finding, "_read_manifest", fail)
    step, run = restored(store)
    assert step == 80 and [*run.refused] == [f"step-00000090/{MANIFEST}"]
    shutil.rmtree(folder_of(disk, 80))
    with pytest.raises(StoreError, match=r"no checkpoint below .* can be loaded: step-00000090"):
        restored(store)
    assert folder_of(disk, 90).is_dir(), "it may be a good one"


@pytest.mark.parametrize("failures", [1, 2, 3])
def test_saves_in_memory_that_fail_leave_the_one_before(
    store: Store, failures: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _begin(store)
    run.save(10)
    run.save(20, durable=False)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "_replace", _full)
        for step in range(30, 30 + failures):
            run.save(step, durable=False)
    assert len(run.messages("warning")) == failures
    run.leave()
    assert restored(store, memory_every_steps=1)[0] == 20
    run = _begin(store)
    run.save(40, durable=False)
    run.leave()
    assert restored(store, memory_every_steps=1)[0] == 40


def test_what_was_restored_from_another_layout_stays_until_there_is_something_newer(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _begin(store)
    run.save(10)
    run.save(20, durable=False)
    run.leave()
    monkeypatch.setattr(layout, "_ALIGNMENT", 8192)
    run = _begin(store)
    with monkeypatch.context() as patch:
        patch.setattr(saving, "_replace", _full)
        run.save(25, durable=False)
    run.leave()
    assert restored(store, memory_every_steps=1)[0] == 20
    run = _begin(store)
    run.save(26, durable=False)
    run.save(27, durable=False)
    run.leave()
    assert restored(store, memory_every_steps=1)[0] == 27


def test_headers_of_another_layout_are_not_written_over_what_was_restored(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _begin(store)
    run.save(20, durable=False)
    run.leave()
    real = layout.safetensors_header

    def other(tensors: Any, alignment: int = 8) -> bytes:
        return real(tensors, alignment).replace(b'"format":"pt"', b'"format":"xx"')

    monkeypatch.setattr(layout, "safetensors_header", other)
    _begin(store).leave()  # ends before its first save
    monkeypatch.setattr(layout, "safetensors_header", real)
    assert restored(store, memory_every_steps=1)[0] == 20


def test_a_damaged_checkpoint_on_disk_does_not_cost_a_newer_run_its_memory(store: Store) -> None:
    disk = written(store, 80, 100)
    flip(folder_of(disk, 100) / WEIGHTS)
    run = _begin(store)
    assert [*run.refused] == [f"step-00000100/{WEIGHTS}"]
    run.save(95, durable=False)
    run.leave()
    places.forget_memory(store, FOLDER)
    assert restored(store, memory_every_steps=1)[0] == 95
    run = _begin(store)
    run.save(97)
    run.leave()
    places.forget_memory(store, FOLDER)
    assert not memory_tier.run_folder(store.where(FOLDER)).exists(), "the same attempt has it on disk"


def test_a_full_disk_does_not_cost_the_checkpoint_that_is_saved_again(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that was restored from memory is stopped at once: what it would write is on disk already."""
    run = _begin(store)
    run.save(70)
    run.save(80)
    run.leave()
    run = _begin(store)
    real = saving.write_file
    with monkeypatch.context() as patch:
        patch.setattr(saving, "write_file", lambda content, name, path: real(content, name, path and _full()))
        run.save(80)
    assert run.checkpoints.weight_files()
    run.leave()
    shutil.rmtree(memory_tier.run_folder(store.where(FOLDER)))  # the machine was started again
    assert restored(store)[0] == 80


def test_a_damaged_copy_on_disk_is_written_again(store: Store) -> None:
    run = _begin(store)
    run.save(80)
    run.leave()
    flip(folder_of(run.checkpoints.disk, 80) / WEIGHTS)
    run = _begin(store)
    run.save(80)
    run.leave()
    shutil.rmtree(memory_tier.run_folder(store.where(FOLDER)))
    assert restored(store)[0] == 80


def test_what_killed_attempts_left_half_written_is_removed(store: Store) -> None:
    disk = written(store, 10)
    for step in (13, 17, 23):
        folder = folder_of(disk, step)
        folder.mkdir()
        (folder / WEIGHTS).write_bytes(bytes(1000))
    run = Small(store, keep=1)
    assert run.restore() is not None
    assert [path.name for path in disk.iterdir()] == ["step-00000010"]
    run.leave()


def test_half_written_ones_in_a_bucket_are_removed(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(f"{bucket}/store")
    written(store, 10)
    store.put(f"{FOLDER}/step-00000013/{WEIGHTS}", bytes(1000))
    run = Small(store, keep=1)
    assert run.restore() is not None
    assert [*store.folders(FOLDER)] == [f"{FOLDER}/step-00000010"]
    run.leave()


def test_what_cannot_be_removed_is_a_warning(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Small(store, keep=1)
    run.restore()
    run.save(1)

    def refuse(self: Store, name: str) -> None:
        raise StoreError(f"store: cannot remove {name}: Permission denied")

    monkeypatch.setattr(Store, "remove", refuse)
    run.save(2)
    assert ["an older checkpoint could not be removed" in text for text in run.messages("warning")] == [True]
    run.leave()
    assert restored(store)[0] == 2


def test_a_run_that_starts_while_its_leftover_is_removed_waits_for_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = _begin(store)
    run.save(10)
    run.leave()
    (left,) = leftovers()
    real, started = shutil.rmtree, []

    def slow(path: Path, **options: Any) -> None:
        other = threading.Thread(target=lambda: started.append(MemoryFolder(store.where(FOLDER))))
        other.start()
        other.join(0.2)
        assert not started, "it has to wait"
        real(path, **options)
        waiting.append(other)

    waiting: list[threading.Thread] = []
    monkeypatch.setattr(memory_tier.shutil, "rmtree", slow)
    assert remove_leftover(left)
    waiting[0].join(10)
    assert len(started) == 1 and (started[0].path / "lock").exists() and (started[0].path / "slot-0").is_dir()
    started[0].close()
    monkeypatch.setattr(memory_tier.shutil, "rmtree", real)
    assert restored(store, memory_every_steps=1)[0] == 10, "from disk"


def test_the_newest_step_is_the_largest_number(store: Store) -> None:
    for step in (99_999_999, 100_000_000):
        store.put(f"{FOLDER}/{finding.step_folder(step)}/{MANIFEST}", b"{}")
    assert finding.committed_checkpoints(store, FOLDER)[-1].endswith("step-100000000")


def test_uploads_raise_the_first_error_and_leave_the_rest() -> None:
    done: list[str] = []

    def work(item: str) -> None:
        if item == "3":
            raise StoreError("away")
        done.append(item)

    with pytest.raises(StoreError, match="away"):
        _in_daemon_threads(work, [str(number) for number in range(1000)])
    assert len(done) < 999
    done.clear()
    _in_daemon_threads(done.append, ["a", "b"])
    assert sorted(done) == ["a", "b"]
