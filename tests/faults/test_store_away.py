"""The store becomes unreachable during a run: a clear error, no manifest; later the same call finishes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.store import Artifact, ArtifactWriter, Config, Stage, Store, StoreError
from tests.faults.checks import assert_error, assert_nothing_whole, assert_same
from tests.faults.forge import HOLD, Forge, Moment, event, store
from tests.support import ObjectStore


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "moment"),
    [
        ("corpus", event("'progress'", "'judge'", nth=2, act=HOLD)),
        ("sample", store("put_file", nth=5, act=HOLD)),
        ("sample", store("create", "manifest.json", act=HOLD)),
        ("training", Moment("stages.training.checkpoint.checkpointer:Checkpointer.save", nth=2, act=HOLD)),
        # The same in slower stages.
        pytest.param("tokens", store("put_file", nth=5, act=HOLD), marks=pytest.mark.full),
        pytest.param("corpus", store("create", "manifest.json", act=HOLD), marks=pytest.mark.full),
    ],
    ids=str,
)
def test_a_store_that_becomes_unreachable_during_a_run(
    kind: str,
    moment: Moment,
    place: str,
    object_store: ObjectStore,
    forge: Forge,
    undisturbed: dict[str, Artifact],
    tmp_path: Path,
) -> None:
    run = forge.start(kind, place, moment)
    assert run.reached(), run.log
    object_store.stop()
    try:
        run.go()
        assert_error(run, place, "check that the store is reachable")
    finally:
        object_store.start()
    assert_nothing_whole(place, kind)
    assert_same(undisturbed[kind], forge.run(kind, place), place, tmp_path / "cache")


class _Toy(Config):
    pass


@pytest.mark.parametrize("place", ["s3"], indirect=True)
def test_the_same_process_can_retry_when_the_store_is_back(place: str, object_store: ObjectStore) -> None:
    """Its own lease could not be released, and is not taken for another process's."""

    def build(config: _Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
        writer.put("x", b"x")
        if not back:
            object_store.stop()

    toy, back = Stage("toy", 1, build), []
    try:
        with pytest.raises(StoreError, match="check that the store is reachable"):
            toy.run(_Toy(), {}, Store(place))
    finally:
        object_store.start()
    back.append(True)
    artifact = toy.run(_Toy(), {}, Store(place))
    assert not [name for name in Store(place).list(artifact.folder) if "lease" in name]
