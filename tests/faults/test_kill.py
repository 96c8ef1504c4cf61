"""SIGKILL at any moment, then the same call: the same digest, no process, no scratch files, nothing left over."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from stages.store import Artifact, Store
from tests.faults.checks import assert_nothing_whole, assert_same
from tests.faults.forge import KILL_GROUP, Forge, Moment, event, store

PASSES = {
    "sample": [Moment("stages.sample.writing:write_lines", nth=7)],
    "corpus": [
        event("'progress'", "'read'", nth=2),
        event("'exact_duplicates'"),
        event("'progress'", "'judge'", nth=3),
        event("'near_duplicates'"),
        event("'progress'", "'write'", nth=1),
    ],
    "tokens": [
        event("'tokenizer'"),
        Moment("stages.tokens.encode:write_part", nth=4, after=True),
        Moment("stages.tokens.shard_files:ShardFiles.finish", nth=9, after=True),
        Moment("stages.tokens.encode:write_documents", nth=3),
    ],
    "model": [Moment("stages.training.export:write_weight_file", after=True)],
}
"""Moments inside the stages' own work."""

COMMIT = [
    event("'started'"),
    store("put_file", nth=2),
    store("put_file", nth=4, after=True),
    store("create", "manifest.json"),
    Moment("stages.store.store:_write_durable", (".manifest.json",), after=True),
    store("create", "manifest.json", after=True),
    event("'finished'"),
]
"""Moments that every stage has: the cheapest one shows them. The fifth is between a temporary file and its rename."""

ON_S3 = {
    "sample": [store("put_file", nth=4), store("create", "manifest.json")],
    "corpus": [event("'progress'", "'judge'", nth=2)],
    "tokens": [store("put_file", nth=9, after=True)],
}
ON_S3_FULL = [("corpus", moment) for moment in ON_S3["sample"]]


COMMIT_FULL = [("corpus", moment) for moment in COMMIT]
"""The same in a slower stage; marked full."""


def cases(short: Iterable[tuple[str, Moment]], full: Iterable[tuple[str, Moment]]) -> list[Any]:
    return [*short, *(pytest.param(*case, marks=pytest.mark.full) for case in full)]


def assert_same_after_kill(
    forge: Forge,
    undisturbed: Artifact,
    url: str,
    tmp_path: Path,
    moment: Moment,
    first: Mapping[str, bool] = {},
    **options: int,
) -> None:
    """Kills a run, checks what is left, and runs the stage again; `first` are options of the killed run only."""
    kind = undisturbed.manifest.kind
    killed = forge.start(kind, url, moment, **options, **first)
    assert killed.wait() == -signal.SIGKILL, killed.result
    assert killed.all_ended()
    behind = moment.call.endswith(".emit") and "'finished'" in moment.words
    if not behind and not (moment.after and "manifest.json" in moment.words):
        assert_nothing_whole(url, kind)
    artifact = assert_same(undisturbed, forge.run(kind, url, **options), url, tmp_path / "cache")
    manifests = [
        name for name in Store(url).list(kind) if name.endswith("/manifest.json") and "checkpoints" not in name
    ]
    assert manifests == [f"{artifact.folder}/manifest.json"]


@pytest.mark.parametrize(
    ("kind", "moment"),
    cases(
        [(kind, moment) for kind, moments in PASSES.items() for moment in moments]
        + [("sample", moment) for moment in COMMIT]
        + [("tokens", COMMIT[1]), ("model", COMMIT[3])],
        COMMIT_FULL,
    ),
    ids=str,
)
def test_a_killed_stage_has_the_same_artifact_when_it_runs_again(
    kind: str, moment: Moment, forge: Forge, undisturbed: dict[str, Artifact], place: str, tmp_path: Path
) -> None:
    assert_same_after_kill(forge, undisturbed[kind], place, tmp_path, moment)


@pytest.mark.parametrize("act", ["kill", KILL_GROUP])
@pytest.mark.parametrize("step", ["read", "judge"])
def test_workers_end_with_the_killed_process(
    step: str, act: str, forge: Forge, undisturbed: dict[str, Artifact], place: str, tmp_path: Path
) -> None:
    """Spawned workers have lost their parent then, and hold files open in the scratch folder: one rank is finished and
    the next is running in a worker."""
    moment = event("'progress'", f"'{step}'", nth=2, act=act)
    at_work = {"workers_first": True}
    assert_same_after_kill(forge, undisturbed["corpus"], place, tmp_path, moment, at_work, workers=2)


@pytest.mark.parametrize("place", ["s3"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "moment"),
    cases([(kind, moment) for kind, moments in ON_S3.items() for moment in moments], ON_S3_FULL),
    ids=str,
)
def test_a_killed_stage_on_an_object_store(
    kind: str, moment: Moment, forge: Forge, undisturbed: dict[str, Artifact], place: str, tmp_path: Path
) -> None:
    assert_same_after_kill(forge, undisturbed[kind], place, tmp_path, moment)


IN_TRAINING = [
    (Moment("stages.training.loop.loop:Loop._step", ("(0,",)), {0}),
    (Moment("stages.training.checkpoint.checkpointer:Checkpointer.save", nth=1, after=True), {0}),
    (store("put", "step-00000002/manifest.json"), {2}),  # from memory
    (event("('checkpoint',", nth=2), {4}),
    (Moment("stages.training.checkpoint.checkpointer:remove_superseded", nth=3, after=True), {6}),
    (Moment("stages.training.run:Run.publish_file", ("loss.parquet",)), {6}),
    (store("create", "manifest.json"), {6}),
]
"""Moments, and the steps of which one is where the second attempt resumes. In the second moment a thread may be writing
a checkpoint."""
ON_S3_IN_TRAINING = [
    IN_TRAINING[1],
    # A thread uploads: the training has gone on, and later checkpoints may be on this machine's disk.
    (store("put", "step-00000002/manifest.json"), {2, 4, 6}),
    IN_TRAINING[5],
]


@pytest.mark.parametrize(
    ("place", "moment", "steps"),
    [("file", *case) for case in IN_TRAINING] + [("s3", *case) for case in ON_S3_IN_TRAINING],
    indirect=["place"],
    ids=str,
)
def test_training_resumes_from_its_last_checkpoint_with_the_same_bits(
    moment: Moment,
    steps: set[int],
    forge: Forge,
    undisturbed: dict[str, Artifact],
    place: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    killed = forge.start("training", place, moment)
    assert killed.wait() == -signal.SIGKILL, killed.result
    assert killed.all_ended()
    assert_nothing_whole(place, "training")
    artifact = assert_same(undisturbed["training"], forge.run("training", place), place, tmp_path / "cache")
    events, _ = artifact.events().read()
    restarts = [event["step"] for event in events if event["type"] == "restart"]
    assert (restarts or [0])[-1] in steps and len(restarts) <= 1
    assert [path.name for path in temporary.iterdir() if not path.name.startswith("torchinductor")] == []
