"""Checkpoints in memory that a killed run left behind: found, and removed when they are old or in the way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from stages.training.checkpoint import memory_tier
from stages.training.checkpoint.memory_tier import KEEP_SECONDS, LOCATION, MemoryFolder, leftovers, make_room


@pytest.fixture(autouse=True)
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(memory_tier.ROOT_VARIABLE, str(tmp_path))
    return tmp_path


def _leave(run: str, size: int = 1000, age_seconds: float = 0.0) -> Path:
    folder = MemoryFolder(run)
    (folder.path / "slot-0" / "weights").write_bytes(bytes(size))
    folder.close()
    then = time.time() - age_seconds
    for path in folder.path.rglob("*"):
        os.utime(path, (then, then))
    return folder.path


def test_what_a_process_uses_is_no_leftover() -> None:
    assert [*leftovers()] == []
    folder = MemoryFolder("/store/training/a/checkpoints")
    assert [*leftovers()] == []
    folder.close()
    (found,) = leftovers()
    assert (found.folder, found.run) == (folder.path, "/store/training/a/checkpoints")


def test_a_half_removed_folder_keeps_its_size_and_age() -> None:
    folder = _leave("/run", 1000, 2 * KEEP_SECONDS)
    (folder / LOCATION).unlink()
    (found,) = leftovers()
    assert (found.run, found.bytes) == ("an unknown run", 1000)
    assert found.age_seconds > KEEP_SECONDS, "it is removed as others are"


def test_old_leftovers_make_room_and_those_in_use_stay() -> None:
    own = MemoryFolder("/own")
    old, new = _leave("/old", age_seconds=KEEP_SECONDS + 60), _leave("/new", age_seconds=60)
    used = MemoryFolder("/used")
    assert [found.folder for found in make_room(0, own.path)] == [old]
    assert [found.folder for found in make_room(1 << 60, own.path)] == [new]
    assert not old.exists() and not new.exists() and used.path.exists() and own.path.exists()
    own.close()
    used.close()


def test_a_leftover_that_a_run_uses_by_now_is_not_removed() -> None:
    _leave("/run")
    (found,) = leftovers()
    resumed = MemoryFolder("/run")
    assert not memory_tier.remove_leftover(found) and found.folder.exists()
    resumed.close()
    assert memory_tier.remove_leftover(found) and not found.folder.exists()
