"""Checkpoints in this machine's memory: found first, passed over when damaged, and nobody else's."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest

from stages.store import Store, StoreError
from stages.training.checkpoint.format import INDEX, MANIFEST, STATE
from stages.training.checkpoint.memory_tier import (
    LOCATION,
    SLOTS,
    MemoryFolder,
    leftovers,
    make_room,
    memory_root,
    remove_run,
    run_folder,
)
from tests.stages.training.checkpoint.small import (
    FOLDER,
    OPTIMIZER,
    WEIGHTS,
    Small,
    bits,
    flip,
    folder_of,
    restored,
    values,
)

pytestmark = pytest.mark.usefixtures("memory")


def _saved(store: Store, durable: bool) -> tuple[Path, Path]:
    """A run that has saved step 1, on disk or not, and step 2 in memory alone; their slots."""
    run = Small(store, memory_every_steps=1)
    assert run.restore() is None
    run.save(1, durable=durable)
    run.save(2, durable=False)
    run.leave()
    slots = [run_folder(store.where(FOLDER)) / name for name in SLOTS]
    first, second = sorted(slots, key=lambda slot: (slot / MANIFEST).stat().st_mtime_ns)
    return first, second


def test_the_newest_is_taken_from_memory_and_again_after_it_was_used(store: Store) -> None:
    _saved(store, durable=True)
    for _ in range(2):
        run = Small(store, memory_every_steps=1)
        found = run.restore()
        run.leave()
        assert found is not None and (found.step, found.candidate.tier) == (2, "memory")
        assert bits(run.tensors) == bits(values(2))


def test_the_one_that_was_restored_stays_until_a_newer_one_is_whole(store: Store) -> None:
    _saved(store, durable=True)
    run = Small(store, memory_every_steps=1)
    run.restore()
    run.save(3, durable=False, wait=False)
    run.leave()
    slots = run_folder(store.where(FOLDER)).glob(f"*/{MANIFEST}")
    newest = max(slots, key=lambda path: json.loads(path.read_bytes())["step"])
    newest.unlink()  # as if it had never been committed
    assert restored(store, memory_every_steps=1)[0] == 2


@pytest.mark.parametrize("file", [WEIGHTS, OPTIMIZER, INDEX, STATE])
def test_a_flipped_bit_in_memory_leads_to_the_disk(store: Store, file: str) -> None:
    first, second = _saved(store, durable=True)
    flip(second / file)
    (first / file).unlink()
    run = Small(store, memory_every_steps=1)
    found = run.restore()
    run.leave()
    assert found is not None and (found.step, found.candidate.tier) == (1, "disk")
    assert bits(run.tensors) == bits(values(1))
    assert run.refused == {
        f"memory/step-00000001/{file}": "missing, or of another size",
        f"memory/step-00000002/{file}": "not what was written",
    }


def test_with_all_of_memory_damaged_and_nothing_on_disk_the_run_begins_anew(store: Store) -> None:
    first, second = _saved(store, durable=False)
    flip(first / WEIGHTS)
    (second / STATE).unlink()
    step, run = restored(store, memory_every_steps=1)
    assert step is None and len(run.refused) == 2


def test_a_half_written_slot_is_no_checkpoint(store: Store) -> None:
    _, second = _saved(store, durable=True)
    (second / MANIFEST).unlink()
    step, run = restored(store, memory_every_steps=1)
    assert step == 1 and not run.refused


def test_the_end_of_a_run_frees_the_memory(store: Store) -> None:
    run = Small(store, memory_every_steps=1)
    run.restore()
    run.save(1)
    run.checkpoints.close()
    assert not run_folder(store.where(FOLDER)).exists()
    assert folder_of(run.checkpoints.disk, 1).is_dir()


def test_memory_without_room_is_a_warning_and_the_disk_has_the_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryFolder, "free_bytes", lambda self: 1000)
    run = Small(store, memory_every_steps=1)
    run.restore()
    run.save(1)
    run.leave()
    assert ["no checkpoints in memory: they need" in text for text in run.messages("warning")] == [True]
    assert restored(store)[0] == 1


@pytest.mark.parametrize("foreign", ["open to all", "link", "file"])
def test_a_folder_that_others_can_enter_is_not_used(store: Store, tmp_path: Path, foreign: str) -> None:
    root = memory_root()
    if foreign == "open to all":
        root.mkdir()
        root.chmod(0o777)
    elif foreign == "link":
        (tmp_path / "theirs").mkdir(mode=0o700)
        root.symlink_to(tmp_path / "theirs")
    else:
        root.write_text("theirs")
    with pytest.raises(StoreError, match="no checkpoints in memory"):
        MemoryFolder(store.where(FOLDER))
    assert [*leftovers()] == []
    step, run = restored(store, memory_every_steps=1)
    assert step is None and "no checkpoints in memory" in run.messages("warning")[0]
    assert not [*(tmp_path / "theirs").glob("*")]


def test_what_no_process_uses_is_a_leftover(store: Store) -> None:
    _saved(store, durable=False)
    found = [*leftovers()]
    assert [left.run for left in found] == [store.where(FOLDER)]
    assert found[0].bytes > sum(tensor.nbytes for tensor in values(1).values()) and found[0].age_seconds < 1000
    held = MemoryFolder(store.where(FOLDER))
    assert [*leftovers()] == [], "a process holds it"
    held.close()
    assert len([*leftovers()]) == 1
    remove_run(store.where(FOLDER))
    remove_run(store.where(FOLDER))
    assert [*leftovers()] == []


def _leave(where: str, hours: float) -> Path:
    """What a run that was killed so long ago has left."""
    folder = MemoryFolder(where)
    folder.close()
    for path in folder.path.rglob("*"):
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    return folder.path


def test_old_leftovers_are_removed_and_younger_ones_where_room_is_needed() -> None:
    own, week, hour, used = _leave("own", 99), _leave("week", 7 * 24), _leave("hour", 1), _leave("used", 7 * 24)
    second = _leave("second", 1.5)
    held = MemoryFolder("used")
    free = shutil.disk_usage(own).free
    assert [left.folder for left in make_room(free // 2, own)] == [week]
    assert own.exists() and hour.exists() and used.exists() and not week.exists()
    assert [left.folder for left in make_room(2 * free, own)] == [second, hour], "oldest first"
    assert (own / LOCATION).exists() and used.exists()
    held.close()
