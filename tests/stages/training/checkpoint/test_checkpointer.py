"""Damaged, half-written and fetched checkpoints, in a folder and on an object store."""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pytest

from stages.store import Artifact, Store, StoreError
from stages.training import stop as stop_module
from stages.training.errors import StoppedError
from stages.training.loop.loop import Loop
from stages.training.stop import request_stop
from tests.stages.training.prepared import before_step, checkpoints, die, events, make, one_core, run_folder, weights_of
from tests.support import ObjectStore, damaged_files

OPTIMIZER = "optimizer-00000-00000.safetensors"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_and_half_written_checkpoints_are_skipped(interrupted: Store, tokens_artifact, undisturbed):
    folder = run_folder(interrupted) / "checkpoints"
    half = folder / "step-00000011"
    shutil.copytree(folder / "step-00000008", half)
    (half / "manifest.json").unlink()
    assert checkpoints(interrupted) == ["step-00000004", "step-00000008"]
    _flip(folder / "step-00000008" / OPTIMIZER)
    resumed = make(interrupted, tokens_artifact)
    assert events(interrupted, "checkpoint_refused")[0]["files"] == [f"step-00000008/{OPTIMIZER}"]
    assert events(interrupted, "restart")[0]["step"] == 4
    assert weights_of(resumed) == weights_of(undisturbed)


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_by_name(interrupted: Store, tokens_artifact):
    for name in checkpoints(interrupted):
        _flip(run_folder(interrupted) / "checkpoints" / name / "state.json")
    with pytest.raises(
        StoreError, match=r"step-00000008/state\.json, step-00000004/state\.json \(not what was written\)"
    ):
        make(interrupted, tokens_artifact)


@dataclass(frozen=True)
class Stopped:
    """A run on S3 that was killed before step 6, resumed, and stopped after step 10."""

    store: Store
    cache: Path
    """This machine's cache of the objects it fetched."""
    when_killed: list[str]
    """Names of the checkpoints at the time of the kill."""
    message: str
    """The message of its `StoppedError`."""

    def copied(self, folder: str) -> Store:
        """The store as it was then."""
        fs, root = fsspec.core.url_to_fs(self.store.url)
        bucket = root.split("/")[0]
        for name in fs.find(root):
            fs.copy(name, f"{bucket}/{folder}/{name.removeprefix(root).lstrip('/')}")
        return Store(f"s3://{bucket}/{folder}")


def _die_once_stored(loop: Loop) -> None:
    """Two steps are too short for an upload on a busy machine."""
    loop.state.checkpoints.commit(wait=True)
    loop.state.checkpoints._drain()
    die(loop)


@pytest.fixture(scope="module")
def stopped(
    tokens_artifact: Artifact, object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stopped]:
    fsspec.filesystem("s3").mkdir("stopped-runs")
    store, cache = Store("s3://stopped-runs/store"), tmp_path_factory.mktemp("cache")
    with one_core(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        patch.setattr(stop_module, "_POLL_SECONDS", 0.0)
        before_step(patch, 6, _die_once_stored)
        with pytest.raises(KeyboardInterrupt):
            make(store, tokens_artifact)
        when_killed = checkpoints(store)

        def ask(loop: Any) -> None:
            request_stop(loop.run)
            while not loop.stop.set:
                time.sleep(0.01)

        before_step(patch, 9, ask)
        with pytest.raises(StoppedError) as caught:
            make(store, tokens_artifact)
        yield Stopped(store, cache, when_killed, str(caught.value))


def _restarts(artifact: Artifact) -> list[int]:
    return [event["step"] for event in artifact.events().read()[0] if event["type"] == "restart"]


def test_a_run_on_an_object_store_is_killed_stopped_and_has_the_same_bits(
    stopped: Stopped, tokens_artifact, undisturbed
):
    """Checkpoints, stop file, outcome and artifact, all on S3; the scratch folders of this machine are empty after."""
    store = stopped.copied("resumed")
    assert stopped.when_killed == ["step-00000004"]
    assert re.search(rf"after step 10 of 12.* in {stopped.store.url}/training/.*/checkpoints", stopped.message)
    assert checkpoints(store) == ["step-00000008", "step-00000010"]
    resumed = make(store, tokens_artifact)
    assert _restarts(resumed) == [4, 10]
    assert weights_of(resumed) == weights_of(undisturbed)
    assert not damaged_files(resumed)
    left = [path for path in stopped.cache.rglob("*") if path.is_file() and "artifacts" not in path.parts]
    assert not left


def test_an_object_store_s_damaged_checkpoint_is_skipped(stopped: Stopped, tokens_artifact, undisturbed):
    store = stopped.copied("damaged")
    folder = next(store.folders("training"))
    store.remove(f"{folder}/checkpoints/step-00000010/{OPTIMIZER}")
    resumed = make(store, tokens_artifact)
    assert _restarts(resumed) == [4, 8]
    assert weights_of(resumed) == weights_of(undisturbed)
