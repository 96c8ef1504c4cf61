"""Two runs of one plan at once: made once, by one of them, whatever happens to it."""

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
"""The cheapest stage; a dearer one shows the same again."""
WAITING = Moment("tests.faults.jobs:tell_waiting", act=HOLD)
"""The first time that a run finds the lease in somebody else's hands."""


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
    made = assert_same(undisturbed[kind], second, place, tmp_path / "cache")
    assert first.wait() == 0 and first.result["digest"] == made.digest
    assert second.result["waited_for"] == [first.pid]
    assert [event["type"] for event in made.events().read()[0]].count("started") == 1
    assert list(made.store.folders(kind)) == [made.folder]


@KINDS
@PLACES
def test_the_second_goes_on_at_once_when_the_first_is_killed(
    kind: str, place: str, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path
) -> None:
    """The first one's parent has not asked about it when the second looks: it is a zombie, and has a pid."""
    first = forge.start(kind, place, MIDDLE[kind])
    assert first.reached()
    second = forge.start(kind, place, WAITING, waiting=True)
    assert second.reached(), second.log
    assert_nothing_whole(place, kind)
    os.kill(first.pid, signal.SIGKILL)
    second.go()
    made = assert_same(undisturbed[kind], second, place, tmp_path / "cache")
    assert second.result["waited_for"] == [first.pid]
    types = [event["type"] for event in made.events().read()[0]]
    assert types.count("finished") == 1
    assert first.wait() == -signal.SIGKILL


@PLACES
def test_one_of_two_that_start_in_the_same_moment_makes_it(
    place: str, forge: Forge, undisturbed: dict[str, Artifact], tmp_path: Path
) -> None:
    """Both have seen that there is no artifact when they are let go."""
    moment = store("create", "lease-0", act=HOLD)
    runs = [forge.start("tokens", place, moment, waiting=True) for _ in range(2)]
    assert all(run.reached() for run in runs)
    for run in runs:
        run.go()
    made = [assert_same(undisturbed["tokens"], run, place, tmp_path / "cache") for run in runs if run.wait() == 0]
    assert len(made) == 2, [(run.wait(), run.result, run.log) for run in runs]
    assert made[0].manifest == made[1].manifest
    assert [event["type"] for event in made[0].events().read()[0]].count("started") == 1


def test_two_recipes_share_a_stage(forge: Forge, undisturbed: dict[str, Artifact], place: str) -> None:
    """The plan has the same name in both; each has a ref of its own to the one artifact."""
    first = forge.start("corpus", place, MIDDLE["corpus"])
    assert first.reached()
    second = forge.start("corpus", place, WAITING, waiting=True, workers=2)
    assert second.reached(), second.log
    first.go()
    second.go()
    assert first.wait() == second.wait() == 0
    made = Store(place)
    for recipe, run in (("one", first), ("two", second)):
        artifact = load(made, run.result["folder"])
        assert artifact is not None and artifact.digest == undisturbed["corpus"].digest
        write_ref(made, recipe, "corpus", artifact)
    assert list_refs(made) == {f"{recipe}/corpus": undisturbed["corpus"].digest for recipe in ("one", "two")}
    assert len(list(made.folders("corpus"))) == 1


def test_a_writer_that_was_taken_for_dead_spoils_nothing(tmp_path: Path) -> None:
    """It was suspended, another one took over, and now it writes on."""
    where = Store(tmp_path / "store"), "toy/0000000000000000", "toy", 1, "0" * 64, {}, {}
    suspended, successor = ArtifactWriter(*where), ArtifactWriter(*where)
    successor.put("x", b"whole")
    suspended.put("x", b"ha")
    suspended.discard()
    made = successor.commit()
    assert made.read("x") == b"whole" and not damaged_files(made)
    assert not (tmp_path / "store" / made.folder / ".scratch").exists()


def test_jobs_name_the_same_plan_however_many_workers(forge: Forge, tmp_path: Path) -> None:
    plans = [jobs.arguments("corpus", forge.inputs, workers) for workers in (1, 2)]
    names = {stage.plan(config, given, Store(tmp_path)).fingerprint for stage, config, given in plans}
    assert len(names) == 1
