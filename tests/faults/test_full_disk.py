"""A full disk, wherever a stage meets it: reported as such, nothing partial is committed, the next run finishes."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from stages.store import Artifact, HeadwaterError, Store, StoreError
from stages.store.hashing import MIN_CACHED_BYTES, cached_sha256, sha256_file
from stages.store.store import translate_disk_errors
from tests.faults import jobs
from tests.faults.checks import assert_error, assert_nothing_whole, assert_same
from tests.faults.disk import SmallDisk
from tests.faults.forge import HOLD, Forge
from tests.faults.forge import store as at_store

PAGE = 4096
"""Bytes that a tmpfs allocates at once."""

SIZES = {
    "sample": (3, 40, 64),  # the event log; files of the sample
    "corpus": (4, 60, 90, 104),  # the passes until candidates are gathered, reported by Python and by Arrow
    "tokens": (5, 57, 110),  # the scratch folder; an index, where numpy gives no cause; a shard
    "model": (2, 200),  # the folder; the weights
    "training": (150, 2000),  # the first checkpoint; the second
}
"""Sizes in pages, all too small, and the write that fails at each. The same must hold for every one."""


@pytest.mark.parametrize(("kind", "pages"), [(kind, pages) for kind, all in SIZES.items() for pages in all])
def test_a_full_store_is_reported_and_the_call_finishes_once_there_is_room(
    kind: str,
    pages: int,
    disk: SmallDisk,
    forge: Forge,
    undisturbed: dict[str, Artifact],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = str(disk.folder / "store")
    disk.resize(pages * PAGE)
    assert_error(forge.run(kind, store), str(disk.folder), "No space left", "free some space there and run again")
    assert_nothing_whole(store, kind)
    disk.restore()
    assert_same(undisturbed[kind], forge.run(kind, store), store, tmp_path / "cache")


def test_a_full_disk_is_reported_by_workers_of_a_pool(
    disk: SmallDisk, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = str(disk.folder / "store")
    disk.resize(20 * PAGE)
    assert_error(forge.run("corpus", store, workers=2, workers_first=True), str(disk.folder), "No space left")
    assert_nothing_whole(store, "corpus")
    disk.restore()
    assert_same(undisturbed["corpus"], forge.run("corpus", store, workers=2), store, tmp_path / "cache")


def test_a_disk_that_fits_the_artifact_once_is_enough_after_an_attempt_that_failed(
    disk: SmallDisk, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All files have their final names already when the manifest does not fit."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = str(disk.folder / "store")
    run = forge.start("sample", store, at_store("create", "/manifest.json", act=HOLD))
    assert run.reached()
    disk.resize(disk.used())
    run.go()
    message = assert_error(run, "No space left")
    assert message.startswith("store: cannot create") and "manifest.json" in message
    disk.resize(disk.used() + 40 * PAGE)
    assert_same(undisturbed["sample"], forge.run("sample", store), store, tmp_path / "cache")


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize(("kind", "pages"), [("corpus", 40), ("tokens", 57), ("training", 500)])
def test_the_machine_s_own_disk_is_full_while_the_store_is_elsewhere(
    kind: str,
    pages: int,
    place: str,
    disk: SmallDisk,
    forge: Forge,
    undisturbed: dict[str, Artifact],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = disk.folder / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setenv("TMPDIR", str(disk.folder))
    disk.resize(pages * PAGE)
    assert_error(forge.run(kind, place), str(disk.folder), "No space left")
    assert_nothing_whole(place, kind)
    disk.restore()
    assert_same(undisturbed[kind], forge.run(kind, place), place, cache)


def test_an_artifact_that_does_not_fit_the_cache(
    bucket: str, disk: SmallDisk, forge: Forge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk.folder))
    stage, config, given = jobs.arguments("sample", forge.inputs)
    artifact = stage.run(config, given, Store(bucket))
    disk.resize(8 * PAGE)
    with pytest.raises(StoreError, match=rf"to {disk.folder}/.*No space left on device; free some space"):
        artifact.local()
    assert not list(disk.folder.rglob("*.part"))
    disk.restore()
    assert (artifact.local() / "truth.jsonl").read_bytes() == artifact.read("truth.jsonl")


def test_a_hash_that_cannot_be_cached_is_returned_all_the_same(
    disk: SmallDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    large = tmp_path / "large"
    large.write_bytes(bytes(MIN_CACHED_BYTES))
    os.utime(large, (1e9, 1e9))
    monkeypatch.setenv("XDG_CACHE_HOME", str(disk.folder))
    disk.resize(PAGE)
    (disk.folder / "filler").write_bytes(bytes(PAGE))
    assert cached_sha256(large) == sha256_file(large)


def test_disk_errors_without_a_cause_are_translated_and_other_errors_are_not(disk: SmallDisk) -> None:
    with pytest.raises(ZeroDivisionError), translate_disk_errors("toy", disk.folder):
        raise ZeroDivisionError
    with pytest.raises(HeadwaterError, match="mine"), translate_disk_errors("toy", disk.folder):
        raise HeadwaterError("mine")
    disk.resize(20 * PAGE)
    with (
        pytest.raises(StoreError, match=r"toy: cannot write .*No space left.*\(100000 requested and \d+ written\)"),
        translate_disk_errors("toy", disk.folder),
    ):
        np.save(disk.folder / "array.npy", np.zeros(100_000))
