"""After every prefix of a run's store operations there is no artifact or a whole one, and the next run has the same.

The store refuses everything from its n-th operation on, for every n, and in two ways: the last operation was done and
its answer lost, or it was not done.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.store import Artifact, ArtifactWriter, Config, Stage, Store, StoreError, load
from tests.support import damaged_files

OPERATIONS = ("put", "create", "put_file", "append", "remove", "list", "files", "read", "size", "exists", "read_json")


class FailingStore(Store):
    """A store that does `allowed` operations and no more. The next one is done all the same if `answer_lost`."""

    def __init__(self, url: str, allowed: int, answer_lost: bool):
        super().__init__(url)
        self.allowed, self.answer_lost = allowed, answer_lost
        self._thread = threading.local()

    def _count(self, name: str, act: Any, *args: Any, **kwargs: Any) -> Any:
        if getattr(self._thread, "inside", False):  # one operation built on another
            return act(*args, **kwargs)
        self._thread.inside = True
        try:
            self.allowed -= 1
            if self.allowed < 0 and not (self.allowed == -1 and self.answer_lost):
                raise StoreError(f"{name} {args[:1]}: refused")
            result = act(*args, **kwargs)
            if self.allowed < 0:
                raise StoreError(f"{name} {args[:1]}: the answer is lost")
            return result
        finally:
            self._thread.inside = False


def _counted(name: str) -> Any:
    def operation(self: FailingStore, *args: Any, **kwargs: Any) -> Any:
        return self._count(name, getattr(Store, name).__get__(self), *args, **kwargs)

    return operation


for _name in OPERATIONS:
    setattr(FailingStore, _name, _counted(_name))


class Toy(Config):
    """Three files."""


def build(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    for name in ("a/1", "a/2", "b"):
        writer.put(name, name.encode() * 100)
    writer.events.emit("decided", durable=True)
    writer.counts["files"] = 3


toy = Stage("toy", 1, build)
runs = Stage("toy", 1, build, separate_runs=True)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "s3":
        return request.getfixturevalue("bucket")
    return str(tmp_path / "store") if request.param == "file" else f"memory://{tmp_path.name}"


def attempt(stage: Stage[Toy], store: FailingStore) -> Artifact | None:
    try:
        return stage.run(Toy(), {}, store)
    except StoreError:
        return None
    finally:
        store.allowed = 1 << 30  # events that are buffered may be written late, and must not fill another test's log


def whole(store: Store) -> Artifact | None:
    """The one artifact, all of whose bytes match its manifest, or None."""
    found = [artifact for folder in store.folders("toy") if (artifact := load(store, folder))]
    for artifact in found:
        artifact.check_sizes()
        assert not damaged_files(artifact)
        assert {file.path for file in artifact.files()} == {"a/1", "a/2", "b"}
    assert len(found) <= 1
    return found[0] if found else None


CASES = [*itertools.product(["file", "memory"], [toy, runs], [False, True]), ("s3", runs, True)]
ALSO_ON_S3 = [("s3", toy, False)]
"""Marked full: the S3 case above and those on `memory` cover it."""


def case(url: str, stage: Stage[Toy], lost: bool, marks: Any = ()) -> Any:
    name = f"{url}-{'separate runs' if stage.separate_runs else 'one'}-{'answer lost' if lost else 'refused'}"
    return pytest.param(url, stage, lost, marks=marks, id=name)


@pytest.mark.parametrize(
    ("url", "stage", "answer_lost"),
    [*itertools.starmap(case, CASES), *(case(*each, marks=pytest.mark.full) for each in ALSO_ON_S3)],
    indirect=["url"],
)
def test_every_prefix_of_a_run(answer_lost: bool, stage: Stage[Toy], url: str, tmp_path: Path) -> None:
    """Each operation of a run in turn is the last one that the store does."""
    expected = stage.run(Toy(), {}, Store(f"{url}/undisturbed")).digest
    absent = present = 0
    for allowed in itertools.count():
        place = f"{url}/{allowed}"
        done = attempt(stage, FailingStore(place, allowed, answer_lost))
        artifact = whole(Store(place))
        assert artifact is not None or done is None
        absent, present = absent + (artifact is None), present + (artifact is not None)
        rerun = stage.run(Toy(), {}, Store(place))
        assert rerun.digest == expected
        names = {f"{rerun.folder}/{name}" for name in ("manifest.json", "events.jsonl", "a/1", "a/2", "b")}
        left = {name for name in Store(place).list("") if not name.startswith(f"{rerun.folder}/events/")} - names
        assert not left
        if done is not None:
            break
    assert absent >= 8, "operations before the manifest"
    assert present >= 2, "the manifest, then what follows it"
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file()]
