"""A store that must not or cannot be written: a clear error, and the same call finishes when that is fixed."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from stages.store import Artifact, Store, load
from tests.faults.checks import assert_error, assert_nothing_whole, assert_same
from tests.faults.disk import SmallDisk
from tests.faults.forge import HOLD, Forge, store
from tests.support import ObjectStore

KINDS = ("sample", "corpus", "tokens", "model", "training")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_read_only_disk_is_reported_and_its_artifacts_can_be_read(
    disk: SmallDisk, forge: Forge, undisturbed: dict[str, Artifact], cache: Path
) -> None:
    place = str(disk.folder / "store")
    killed = forge.run("sample", place, store("create", "manifest.json", after=True))
    assert killed.wait() == -signal.SIGKILL
    disk.make_read_only()
    for kind in KINDS[1:]:
        assert_error(forge.run(kind, place), str(disk.folder), "Read-only file system", "mounted read-only")
        assert_nothing_whole(place, kind)
    cached = forge.run("sample", place)
    assert cached.wait() == 0, cached.result
    assert cached.result["digest"] == undisturbed["sample"].digest
    assert "what a killed writer left" in cached.log and "Traceback" not in cached.log
    disk.restore()
    assert_same(undisturbed["sample"], forge.run("sample", place), place, cache)


@pytest.mark.parametrize("kind", ["sample", pytest.param("corpus", marks=pytest.mark.full)])
def test_a_disk_that_becomes_read_only_during_the_commit(
    kind: str, disk: SmallDisk, forge: Forge, undisturbed: dict[str, Artifact], cache: Path
) -> None:
    place = str(disk.folder / "store")
    run = forge.start(kind, place, store("put_file", nth=3, act=HOLD))
    assert run.reached()
    disk.make_read_only()
    run.go()
    assert_error(run, str(disk.folder), "Read-only file system")
    assert_nothing_whole(place, kind)
    disk.restore()
    assert_same(undisturbed[kind], forge.run(kind, place), place, cache)


@pytest.mark.parametrize("name", ["store", "store/tokens", "cache"])
def test_a_file_where_a_folder_should_be(
    name: str,
    forge: Forge,
    undisturbed: dict[str, Artifact],
    tmp_path: Path,
    cache: Path,
    request: pytest.FixtureRequest,
) -> None:
    place = request.getfixturevalue("bucket") if name == "cache" else str(tmp_path / "store")
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("not a folder")
    assert_error(forge.run("tokens", place), str(file))
    assert file.read_text() == "not a folder"
    file.unlink()
    assert_same(undisturbed["tokens"], forge.run("tokens", place), place, cache)


def test_a_bucket_that_does_not_exist(object_store: ObjectStore, forge: Forge) -> None:
    for kind in KINDS:
        assert_error(
            forge.run(kind, "s3://no-such-bucket/store"), "s3://no-such-bucket/store/", "bucket does not exist"
        )
    assert load(Store("s3://no-such-bucket/store"), "corpus/x") is None
