"""A run that ends in an error: what it leaves for the next start, and what it must not leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.store import Artifact, Store
from stages.training.checkpoint.memory_tier import run_folder
from stages.training.errors import TrainingError
from stages.training.loop.loop import Loop
from tests.stages.training.prepared import before_step, checkpoints, events, make, weights_of


@pytest.mark.parametrize("keep", [1, 2])
def test_weights_that_exploded_are_in_no_checkpoint(
    keep: int, tokens_artifact: Artifact, undisturbed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint under way when the first batch after it has no finite loss is not committed."""

    def explode(loop: Any) -> None:
        for parameter in loop.state.model.parameters():
            parameter.data.mul_(1e30)

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        real = Loop._step

        def step(self: Loop, number: int, batch: Any) -> None:
            real(self, number, batch)
            if number == 7:  # before the checkpoint of step 8
                explode(self)

        patch.setattr(Loop, "_step", step)
        with pytest.raises(TrainingError, match="of step 8 is"):
            make(store, tokens_artifact, checkpoint__keep=keep)
    assert checkpoints(store) == ["step-00000004"]
    assert weights_of(make(store, tokens_artifact, checkpoint__keep=keep)) == weights_of(undisturbed)


def test_a_run_that_fails_leaves_in_memory_only_what_is_newer_than_the_disk(
    tokens_artifact: Artifact, undisturbed: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path)

    def fail(loop: Any) -> None:
        raise RuntimeError("a fault of the machine")

    for number, left in ((9, False), (11, True)):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError):
            before_step(patch, number, fail)
            make(store, tokens_artifact, checkpoint__memory_every_steps=5)
        folder = run_folder(store.where(f"{next(store.folders('training'))}/checkpoints"))
        assert folder.exists() is left
    assert weights_of(make(store, tokens_artifact)) == weights_of(undisturbed)
    refused = Store(tmp_path / "refused")  # before its first step: there is nothing in memory
    with monkeypatch.context() as patch, pytest.raises(RuntimeError):
        before_step(patch, 0, fail)
        make(refused, tokens_artifact)
    assert not run_folder(refused.where(f"{next(refused.folders('training'))}/checkpoints")).exists()
    assert [event["checkpoint"] for event in events(store, "restart")] == ["step-00000008", "memory/step-00000010"]
    assert not folder.exists()
