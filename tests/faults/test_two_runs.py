"""Two runs of one plan at once: the artifact is built once, by one of them, whatever happens to the other."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from stages.store import Artifact, ArtifactWriter, Store, list_refs, load, write_ref
from tests.faults import jobs
from tests.faults.checks import assert_nothing_whole, assert_same
from tests.faults.forge import HOLD, Forge, Moment, event, store
from tests.support import damaged_files

PLACES = pytest.mark.parametrize("place", ["file", "s3"], indirect=True)
MIDDLE = {
    "sample": Moment("stages.sample.writing:write_lines", nth=7, act=HOLD),
    "corpus": event("'exact_duplicates'", act=HOLD),
}
KINDS = pytest.mark.parametrize("kind", ["sample", pytest.param("corpus", marks=pytest.mark.full)])
"""The cheapest stage; a slower one, marked full, shows the same."""
WAITING = Moment("tests.faults.jobs:report_waiting", act=HOLD)
"""The first time that a run finds the lease held by another process."""


@KINDS
@PLACES
def test_the_second_waits_and_has_the_same_artifact(
    kind: str, place: str, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path
) -> None:
    first = forge.start(kind, place, MIDDLE[kind])
    assert first.reached()
    refused = forge.run(kind, place)
    assert refused.wait() == 1 and refused.result["error"] == "LeaseHeldError"
    assert f"process {first.pid}" in refused.result["message"] and "Traceback" not in refused.log
    second = forge.start(kind, place, WAITING, waiting=True)
    assert second.reached(), second.log
    first.go()
    second.go()
    artifact = assert_same(undisturbed[kind], second, place, tmp_path / "cache")
    assert first.wait() == 0 and first.result["digest"] == artifact.digest
    assert second.result["waited_for"] == [first.pid]
    assert [event["type"] for event in artifact.events().read()[0]].count("started") == 1
    assert list(artifact.store.folders(kind)) == [artifact.folder]


@KINDS
@PLACES
def test_the_second_takes_over_at_once_when_the_first_is_killed(
    kind: str, place: str, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path
) -> None:
    """The first one's parent has not reaped it when the second checks: it is a zombie, and has a pid."""
    first = forge.start(kind, place, MIDDLE[kind])
    assert first.reached()
    second = forge.start(kind, place, WAITING, waiting=True)
    assert second.reached(), second.log
    assert_nothing_whole(place, kind)
    os.kill(first.pid, signal.SIGKILL)
    second.go()
    artifact = assert_same(undisturbed[kind], second, place, tmp_path / "cache")
    assert second.result["waited_for"] == [first.pid]
    types = [event["type"] for event in artifact.events().read()[0]]
    assert types.count("finished") == 1
    assert first.wait() == -signal.SIGKILL


@PLACES
def test_one_of_two_that_start_at_the_same_moment_builds_it(
    place: str, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path
) -> None:
    """Both have seen that there is no artifact when they are released."""
    moment = store("create", "lease-0", act=HOLD)
    runs = [forge.start("tokens", place, moment, waiting=True) for _ in range(2)]
    assert all(run.reached() for run in runs)
    for run in runs:
        run.go()
    artifacts = [assert_same(undisturbed["tokens"], run, place, tmp_path / "cache") for run in runs if run.wait() == 0]
    assert len(artifacts) == 2, [(run.wait(), run.result, run.log) for run in runs]
    assert artifacts[0].manifest == artifacts[1].manifest
    assert [event["type"] for event in artifacts[0].events().read()[0]].count("started") == 1


def test_two_recipes_share_a_stage(forge: Forge, undisturbed: dict[str, Artifact], place: str) -> None:
    """The plan has the same name in both; each has a ref of its own to the one artifact."""
    first = forge.start("corpus", place, MIDDLE["corpus"])
    assert first.reached()
    second = forge.start("corpus", place, WAITING, waiting=True, workers=2)
    assert second.reached(), second.log
    first.go()
    second.go()
    assert first.wait() == second.wait() == 0
    shared = Store(place)
    for recipe, run in (("one", first), ("two", second)):
        artifact = load(shared, run.result["folder"])
        assert artifact is not None and artifact.digest == undisturbed["corpus"].digest
        write_ref(shared, recipe, "corpus", artifact)
    assert list_refs(shared) == {f"{recipe}/corpus": undisturbed["corpus"].digest for recipe in ("one", "two")}
    assert len(list(shared.folders("corpus"))) == 1


def test_a_writer_that_lost_its_lease_damages_nothing(tmp_path: Path) -> None:
    """It was suspended, another one took over, and now it continues to write."""
    where = Store(tmp_path / "store"), "toy/0000000000000000", "toy", 1, "0" * 64, {}, {}
    suspended, successor = ArtifactWriter(*where), ArtifactWriter(*where)
    successor.put("x", b"whole")
    suspended.put("x", b"ha")
    suspended.discard()
    artifact = successor.commit()
    assert artifact.read("x") == b"whole" and not damaged_files(artifact)
    assert not (tmp_path / "store" / artifact.folder / ".scratch").exists()


def test_the_number_of_workers_does_not_change_the_plan(forge: Forge, tmp_path: Path) -> None:
    plans = [jobs.arguments("corpus", forge.inputs, workers) for workers in (1, 2)]
    names = {stage.plan(config, given, Store(tmp_path)).fingerprint for stage, config, given in plans}
    assert len(names) == 1
