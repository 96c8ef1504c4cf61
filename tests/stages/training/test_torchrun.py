"""Several processes that train together, and one alone: the same numbers, and the same bits where they are as many."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from stages.store import Artifact
from stages.training.checkpoint.finding import committed_checkpoints
from stages.training.loop.loop import train
from stages.training.run import Run
from stages.training.stop import request_stop
from tests.stages.training.prepared import (
    FOR_RANKS,
    column,
    path,
    prepare,
    prepare_from,
    restarts,
    train_on,
    weights_at,
)
from tests.stages.training.ranks import on_ranks


def _first_norms(run: Run) -> list[float]:
    """Of the first update and of the weights after it: of all ranks' parts together."""
    return [column(run, name)[0] for name in ("update_norm", "weight_norm")]


@pytest.fixture(scope="module")
def two(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Two ranks under torchrun, as a machine without Ray would run them. With a batch of 5 the first has a sequence
    less, and runs one of weight zero."""
    run = prepare(tmp_path_factory.mktemp("two"), tokens_artifact)
    file = path(run, "run.json")
    file.write_text(json.dumps(run.as_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", "2", "--module", "stages.training", str(file)]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    outcome = run.outcome()
    assert outcome is not None and outcome["status"] == "finished", done.stderr[-2000:]
    return run


def test_two_ranks_with_adamw_alone_agree_with_one(tokens_artifact, tmp_path):
    runs = [prepare(tmp_path / str(ranks), tokens_artifact, optimizer__name="adamw", steps=4) for ranks in (1, 2)]
    assert [train_on(ranks, run)["status"] for run, ranks in zip(runs, (1, 2), strict=True)] == ["finished"] * 2
    assert column(runs[1]) == pytest.approx(column(runs[0]), rel=1e-4)
    assert _first_norms(runs[1]) == pytest.approx(_first_norms(runs[0]), rel=1e-3)


def test_two_ranks_agree_with_one_within_rounding(two: Run, alone: Run):
    ours, theirs = two.outcome(), alone.outcome()
    assert theirs["details"]["world"] == 1 and ours["details"]["world"] == 2
    assert column(two) == pytest.approx(column(alone), rel=1e-4)
    assert _first_norms(two) == pytest.approx(_first_norms(alone), rel=1e-3)
    assert ours["metrics"]["bits_per_byte"] == pytest.approx(theirs["metrics"]["bits_per_byte"], rel=1e-4)
    weights, expected = weights_at(two), weights_at(alone)
    assert weights.keys() == expected.keys()
    # Adam makes a step of up to the learning rate of a gradient that is zero but for rounding: few, and not more.
    differences = np.abs(
        np.concatenate([np.frombuffer(weights[n], "f4") - np.frombuffer(expected[n], "f4") for n in weights])
    )
    assert differences.max() < FOR_RANKS["optimizer__lr"] and differences.mean() < 1e-5


def test_two_ranks_resume_with_the_same_bits_and_one_takes_over(two: Run, tokens_artifact, tmp_path):
    run = prepare_from(two, tmp_path / "two", tokens_artifact, 3)
    assert train_on(2, run)["status"] == "finished"
    assert weights_at(run) == weights_at(two)
    assert column(run) == column(two)
    # Now one rank resumes from the checkpoint of two.
    last = prepare_from(run, tmp_path / "one", tokens_artifact, 3)
    assert train_on(1, last)["status"] == "finished"
    assert column(last) == pytest.approx(column(two), rel=1e-4)
    assert restarts(last) == [(3, 2), (3, 1)]


def test_one_on_all_cores_resumes_with_the_same_bits(alone: Run, tokens_artifact, tmp_path):
    run = prepare_from(alone, tmp_path, tokens_artifact, 3)
    on_ranks(1, tmp_path / "ranks", train, run)
    assert weights_at(run) == weights_at(alone)


def test_a_stop_file_stops_every_rank(tokens_artifact, tmp_path):
    run = prepare(tmp_path, tokens_artifact)
    request_stop(run)
    outcome = train_on(2, run)
    assert (outcome["status"], outcome["step"]) == ("stopped", 0)
    assert committed_checkpoints(run.store, "run/checkpoints") == ["run/checkpoints/step-00000000"]
