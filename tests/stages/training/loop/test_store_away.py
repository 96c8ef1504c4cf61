"""A store that is away for a while in the middle of a training, or a disk that is full for a while: it goes on."""

from __future__ import annotations

import errno
import time
from pathlib import Path
from typing import Any

import pytest

from stages.store import Artifact, Store, StoreError
from stages.training.checkpoint import saving, upload
from stages.training.checkpoint.finding import step_folder
from stages.training.checkpoint.format import CheckpointFile
from stages.training.loop.loop import Loop
from tests.stages.training.prepared import checkpoints, make, run_folder, weights_of
from tests.support import ObjectStore


def test_a_store_that_is_away_for_a_while_stops_no_training(
    tokens_artifact: Artifact,
    undisturbed: Artifact,
    object_store: ObjectStore,
    bucket: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(upload, "_PAUSES", (0.2,) * 50)
    real, steps_away = Loop._step, []

    def step(self: Loop, number: int, batch: Any) -> None:
        if number == 3:  # before the checkpoint of step 4
            object_store.stop()
        if number == 10:
            object_store.start()
            time.sleep(1)
        if 3 <= number < 10:
            steps_away.append(number)
            time.sleep(0.1)
        real(self, number, batch)

    monkeypatch.setattr(Loop, "_step", step)
    try:
        trained = make(Store(bucket), tokens_artifact)
    finally:
        if object_store.stopped:
            object_store.start()
    assert steps_away == list(range(3, 10)), "none of them was made twice, none waited for the store"
    assert weights_of(trained) == weights_of(undisturbed)
    found = trained.events().read()[0]
    assert [event["step"] for event in found if event["type"] == "checkpoint"] == [4, 8, 12]
    stored = [event["step"] for event in found if event["type"] == "checkpoint_stored"]
    assert stored[-1] == 12 and stored == sorted(stored)
    assert checkpoints(trained.store)[-1] == "step-00000012"


def test_a_disk_that_is_full_for_a_while_stops_no_training(
    tokens_artifact: Artifact, undisturbed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The write of one checkpoint and the events of some steps fail; the next ones hold everything."""
    full, real_append, real_write = [False], Store.append, saving.write_file

    def append(self: Store, name: str, data: bytes, *, durable: bool = False) -> None:
        if full[0]:
            raise StoreError("store: No space left on device")
        real_append(self, name, data, durable=durable)

    def write(content: memoryview, name: str, path: Path | None) -> CheckpointFile:
        if path is not None and path.parent.name == step_folder(4):  # by its name: it may be written later
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        return real_write(content, name, path)

    real_step = Loop._step

    def step(self: Loop, number: int, batch: Any) -> None:
        full[0] = 3 <= number < 7
        real_step(self, number, batch)

    monkeypatch.setattr(Store, "append", append)
    monkeypatch.setattr(saving, "write_file", write)
    monkeypatch.setattr(Loop, "_step", step)
    trained = make(Store(tmp_path), tokens_artifact)
    assert weights_of(trained) == weights_of(undisturbed)
    found = trained.events().read()[0]
    assert [event["step"] for event in found if event["type"] == "checkpoint"] == [8, 12]
    assert not (run_folder(trained.store) / "checkpoints" / "step-00000004").exists(), "its part would fill the disk"
    warnings = [event["message"] for event in found if event["type"] == "warning"]
    assert any("step-00000004" in text and "No space left" in text and "goes on" in text for text in warnings)
