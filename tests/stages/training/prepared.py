"""Runs that tests of training start, read and copy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from torch import Tensor

from stages.store import Artifact, ArtifactWriter, Store
from stages.training import training
from stages.training.checkpoint.finding import committed_checkpoints, dump_manifest, step_folder
from stages.training.checkpoint.format import (
    INDEX,
    MANIFEST,
    WEIGHT_PREFIX,
    CheckpointFile,
    Manifest,
    join,
    parse_index,
    parse_manifest,
)
from stages.training.checkpoint.layout import as_bytes, describe_files, local_pieces, plan_files
from stages.training.checkpoint.weights import CheckpointWeights, final_weights
from stages.training.loop.loop import Loop, train
from stages.training.run import HISTORY, Run
from tests.models.threads import one_thread
from tests.stages.training.ranks import on_ranks
from tests.support import training_config

SETTINGS: dict[str, Any] = {
    "model__size": "1m",
    "steps": 12,
    "data__global_batch_size": 4,
    "schedule__warmup_steps": 2,
    "optimizer__lr": 3e-3,
    "parallelism__workers": 0,
    # auto would time both formats in each run, and a busy machine choose another for the second.
    "parallelism__precision": "fp32",
    "checkpoint__every_steps": 4,
    "validation__every_steps": 6,
    "validation__rows": 4,
}
"""Settings of runs of the whole stage, in this process."""

FOR_RANKS: dict[str, Any] = {
    "model__size": "1m",
    "steps": 5,
    "data__global_batch_size": 5,
    "schedule__warmup_steps": 2,
    "optimizer__lr": 3e-3,
    "parallelism__precision": "fp32",
    "parallelism__micro_batch_size": 1,
    "checkpoint__every_steps": 3,
    # Just before a checkpoint, which holds shards in fp32 and the optimizers' state all the same.
    "validation__every_steps": 3,
    "validation__rows": 5,
}
"""Settings of runs that are prepared here and trained by other processes."""


@contextmanager
def one_core() -> Iterator[None]:
    """This process computes with one thread, and training in it sees one core."""
    with one_thread(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda process: {0})
        yield


def make(store: Store, tokens: Artifact, **changes: Any) -> Artifact:
    """Runs the training stage on the tokens, in this process."""
    return training.run(training_config(**(SETTINGS | changes)), {"tokens": tokens}, store)


def run_folder(store: Store) -> Path:
    """Of the store's one run."""
    return next(path.parent for path in Path(store.root).glob("training/*/events.jsonl"))


def events(store: Store, kind: str) -> list[dict[str, Any]]:
    lines = (run_folder(store) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


def checkpoints(store: Store) -> list[str]:
    """Names of the committed ones, oldest first."""
    folder = next(store.folders("training"))
    return [name.rsplit("/", 1)[-1] for name in committed_checkpoints(store, f"{folder}/checkpoints")]


def before_step(patch: pytest.MonkeyPatch, number: int, action: Callable[[Loop], object]) -> None:
    """Does something just before a step is computed in this process, once."""
    real, done = Loop._step, []

    def step(self: Loop, at: int, batch: Any) -> None:
        if at == number and not done:
            done.append(True)
            action(self)
        real(self, at, batch)

    patch.setattr(Loop, "_step", step)


def die(loop: Loop) -> None:
    raise KeyboardInterrupt


def prepare(folder: Path, tokens: Artifact, base: Artifact | None = None, **changes: Any) -> Run:
    """A run that other processes train, in a store of its own; from scratch, or from a base."""
    store = Store(folder)
    (folder / "run").mkdir(parents=True, exist_ok=True)
    settings = training_config(**(FOR_RANKS | changes))
    return Run(
        url=store.url,
        folder="run",
        tokens_url=tokens.store.url,
        tokens=tokens.folder,
        tokens_digest=tokens.digest,
        config=settings.model_dump(mode="json"),
        base_url=base.store.url if base else "",
        base=base.folder if base else "",
        base_digest=base.digest if base else "",
    )


def prepare_from(finished: Run, folder: Path, tokens: Artifact, checkpoint: int, **changes: Any) -> Run:
    """A copy of a finished run as it was at an earlier checkpoint."""
    run = prepare(folder, tokens, **changes)
    shutil.copytree(path(finished), path(run), dirs_exist_ok=True)
    for later in path(run, "checkpoints").iterdir():
        if int(later.name.removeprefix("step-")) > checkpoint:
            shutil.rmtree(later)
    return run


def path(run: Run, name: str = "") -> Path:
    return run.store.local_path(f"{run.folder}/{name}" if name else run.folder)


def train_on(ranks: int, run: Run) -> dict[str, Any]:
    """The outcome of training in as many processes; alone, in this one."""
    run.clear_outcome()
    if ranks == 1:
        train(run)
    else:
        with tempfile.TemporaryDirectory() as folder:
            on_ranks(ranks, Path(folder) / "ranks", train, replace(run))  # without what it holds open
    outcome = run.outcome()
    assert outcome is not None
    return outcome


def write_weights(writer: ArtifactWriter, weights: Mapping[str, Tensor], step: int = 12) -> None:
    """The files of a finished run's last checkpoint that are in its artifact."""
    for name, content in _checkpoint_files(weights).items():
        writer.put(f"checkpoints/{step_folder(step)}/{name}", content)


def put_checkpoint(store: Store, run: str, weights: Mapping[str, Tensor], step: int) -> None:
    """A checkpoint of weights alone, written by one rank, in the folder of a run."""
    files = _checkpoint_files(weights)
    entries = [
        CheckpointFile(path=name, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
        for name, content in files.items()
    ]
    manifest = dump_manifest(Manifest(step=step, attempt="0" * 32, world=1, files=entries))
    for name, content in {**files, MANIFEST: manifest}.items():
        store.put(f"{run}/checkpoints/{step_folder(step)}/{name}", content)


def _checkpoint_files(weights: Mapping[str, Tensor]) -> dict[str, bytes]:
    plans = plan_files(
        local_pieces({f"{WEIGHT_PREFIX}{name}": tensor for name, tensor in weights.items()}, owned=True), 0
    )
    files = {}
    for plan in plans:
        parts = (as_bytes(piece.tensor).numpy().tobytes() for piece, _ in plan.pieces)
        files[plan.path] = plan.header + b"".join(parts)
    return {**files, INDEX: join([describe_files(plans)]).model_dump_json().encode()}


def weights_of(artifact: Artifact) -> dict[str, bytes]:
    """Every weight's bytes of a finished run's artifact."""
    return _contents(final_weights(artifact))


def weights_at(run: Run, step: int | None = None) -> dict[str, bytes]:
    """Every weight's bytes in a checkpoint of a run, its last one if no step is given."""
    folder = path(run, "checkpoints")
    steps = [int(found.name.removeprefix("step-")) for found in folder.glob("step-*") if (found / MANIFEST).exists()]
    folder = folder / step_folder(max(steps) if step is None else step)
    manifest = parse_manifest((folder / MANIFEST).read_bytes(), str(folder))
    index = parse_index((folder / INDEX).read_bytes(), manifest, str(folder), prefix=WEIGHT_PREFIX)
    return _contents(CheckpointWeights(index, folder.joinpath))


def _contents(weights: CheckpointWeights) -> dict[str, bytes]:
    return {name: weights.read(name).numpy().tobytes() for name in weights.shapes}


def column(run: Run, name: str = "loss") -> list[Any]:
    """Of the run's history, a value a step."""
    return pq.read_table(path(run, HISTORY))[name].to_pylist()


def restarts(run: Run) -> list[tuple[int, int]]:
    """Step and number of ranks of each."""
    return [(event["step"], event["world"]) for event in run.events.read()[0] if event["type"] == "restart"]
