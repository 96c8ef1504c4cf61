"""A checkpoint's manifest and index that whoever may write to the store has made, read by a restart of the training:
nothing is written outside of store and cache, and each is taken or refused with a message."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from stages.store import Store, StoreError
from stages.training.checkpoint.finding import step_folder
from stages.training.checkpoint.format import INDEX, MANIFEST, parse_index, parse_manifest
from tests.stages.store.hostile import check_reader
from tests.stages.training.checkpoint.small import FOLDER, Small, written
from tests.support import examples

Reader = tuple[Any, Callable[[bytes], object], list[Path]]
NAME = f"{FOLDER}/{step_folder(1)}"


def _checkpoint(store: Store) -> tuple[Path, Any]:
    """The folder on this machine's disk of a run with one checkpoint, and its manifest with all that one can hold."""
    disk = written(store, 1)
    optional = {"probe": {"batch": 1, "loss": 1.0, "grad_norm": 1.0}, "bits_per_byte": 1.0}
    return disk, store.read_json(f"{NAME}/{MANIFEST}") | optional


def _restore(store: Store) -> None:
    run = Small(store)
    try:
        run.restore()
    finally:
        run.leave()


def manifests(folder: Path) -> Reader:
    store = Store(folder / "store")
    _, manifest = _checkpoint(store)

    def read(data: bytes) -> None:
        store.put(f"{NAME}/{MANIFEST}", data)
        _restore(store)

    return manifest, read, [folder / "store"]


def fetched_manifests(folder: Path) -> Reader:
    """On an object store, from which files are copied to this machine."""
    store = Store(f"memory://{folder}")
    disk, manifest = _checkpoint(store)
    shutil.rmtree(disk)

    def read(data: bytes) -> None:
        store.put(f"{NAME}/{MANIFEST}", data)
        _restore(store)

    return manifest, read, [folder / "cache"]


def indices(folder: Path) -> Reader:
    """With the checksum in the manifest corrected. One of other tensors than the run's is accepted as an index."""
    store = Store(folder / "store")
    disk, manifest = _checkpoint(store)
    entry = next(entry for entry in manifest["files"] if entry["path"] == INDEX)

    def read(data: bytes) -> None:
        (disk / step_folder(1) / INDEX).write_bytes(data)
        entry.update(bytes=len(data), sha256=hashlib.sha256(data).hexdigest())
        content = json.dumps(manifest).encode()
        (disk / step_folder(1) / MANIFEST).write_bytes(content)
        try:
            parse_index(data, parse_manifest(content, "manifest"), "index")
        except StoreError:
            _restore(store)  # refuses it as well
            raise AssertionError(f"a restart takes {data[:2000]!r}") from None
        with suppress(StoreError):
            _restore(store)

    return store.read_json(f"{NAME}/{INDEX}"), read, [folder / "store"]


READERS: dict[str, Callable[[Path], Reader]] = {
    "manifests of training's checkpoints": manifests,
    "manifests of training's fetched checkpoints": fetched_manifests,
    "indices of training's checkpoints": indices,
}


@pytest.mark.parametrize("name", READERS)
def test_no_mutation_of_a_record_writes_elsewhere_or_ends_in_a_traceback(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    refused, accepted = check_reader(*READERS[name](tmp_path), 8 * examples(50).max_examples)
    assert refused > accepted > 0
