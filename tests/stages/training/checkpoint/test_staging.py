"""Memory for checkpoints: a copy of the tensors as they were, and an error where there is no room."""

from __future__ import annotations

import mmap
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from stages.store import Store
from stages.training.checkpoint import staging
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.layout import LocalPiece, plan_files
from stages.training.checkpoint.memory_tier import ROOT_VARIABLE, MemoryFolder
from stages.training.checkpoint.staging import Slot
from tests.faults.disk import SmallDisk
from tests.stages.training.checkpoint.small import Small, restored


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    if os.geteuid() != 0:
        pytest.skip("full memory file systems not tested: only root can mount a tmpfs")
    disk = SmallDisk(tmp_path / "disk")
    try:
        disk.mount()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"full memory file systems not tested: no tmpfs can be mounted here: {error.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk.folder)], check=True)  # the slots are still mapped


def _pieces(numbers: int) -> list[LocalPiece]:
    tensor = torch.arange(numbers, dtype=torch.float32) + 1 / 3  # no byte at the start of a page is zero
    return [LocalPiece("weight.x", tensor, (numbers,), (0,))]


def test_a_file_system_without_room_is_an_error_at_the_start(disk: SmallDisk) -> None:
    pieces = _pieces(1 << 18)
    disk.resize(64 << 10)
    with pytest.raises(OSError, match="No space left"):
        Slot(plan_files(pieces, 0), disk.folder)
    disk.resize(4 << 20)
    slot = Slot(plan_files(pieces, 0), disk.folder)
    assert disk.used() >= slot.bytes
    slot.close()


def test_memory_that_became_full_is_a_warning_and_the_disk_has_the_checkpoint(
    disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ROOT_VARIABLE, str(disk.folder))
    monkeypatch.setattr(MemoryFolder, "free_bytes", lambda self: 1 << 40)
    store = Store(tmp_path / "store")
    run = Small(store, memory_every_steps=1)
    run.restore()
    disk.resize(disk.used() + 4096)  # another process takes the rest
    (disk.folder / "rest").write_bytes(bytes(4096))
    run.save(1)
    run.save(2, durable=False)
    run.leave()
    assert ["no checkpoint in memory" in text for text in run.messages("warning")] == [True, True]
    assert len(run.messages("checkpoint")) == 1 and not run.messages("memory_checkpoint")
    assert not [*disk.folder.rglob(MANIFEST)]
    step, again = restored(store, memory_every_steps=1)
    assert step == 1 and not again.refused


def test_the_copy_holds_what_was_there_before_the_tensors_changed(tmp_path: Path) -> None:
    pieces = _pieces(5000)
    slot = Slot(plan_files(pieces, 0), tmp_path)
    with ThreadPoolExecutor(1) as pool:
        slot.start_copy(pool)
        slot.wait_copied()
        pieces[0].tensor.fill_(-1)
    (name,) = (path.name for path in tmp_path.iterdir())
    content = (tmp_path / name).read_bytes()
    assert content[-4 * 5000 :] == _pieces(5000)[0].tensor.numpy().tobytes()
    assert content == bytes(slot.memory[0])
    slot.close()
    assert (tmp_path / name).read_bytes() == content


def test_room_that_is_reserved_again_keeps_its_content_on_older_kernels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without MADV_POPULATE_WRITE pages are touched one by one: a restored checkpoint lies in them."""
    plans = plan_files(_pieces(5000), 0)
    slot = Slot(plans, tmp_path)
    with ThreadPoolExecutor(1) as pool:
        slot.start_copy(pool)
        slot.wait_copied()
    slot.close()
    before = (tmp_path / plans[0].path).read_bytes()
    assert all(before[:: mmap.PAGESIZE])
    monkeypatch.setattr(staging, "_POPULATE_WRITE", 0x7FFF)
    with mmap.mmap(-1, 4096) as memory, pytest.raises(OSError):
        memory.madvise(0x7FFF)
    Slot(plans, tmp_path).close()
    assert (tmp_path / plans[0].path).read_bytes() == before


def test_a_link_in_a_file_s_place_is_not_followed(tmp_path: Path) -> None:
    plans = plan_files(_pieces(10), 0)
    folder, outside = tmp_path / "slot", tmp_path / "outside"
    folder.mkdir()
    outside.write_text("mine")
    (folder / plans[0].path).symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        Slot(plans, folder)
    assert outside.read_text() == "mine"
