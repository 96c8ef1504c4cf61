"""Two ranks under torchrun, as a machine without Ray would run them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from models.huggingface import load_weights
from stages.artifact import Artifact, Store
from stages.training import TrainingConfig
from stages.training.checkpoint import Checkpointer, whole_checkpoints
from stages.training.run import HISTORY, WEIGHTS, Run
from stages.training.stop import request_stop

SETTINGS: dict[str, Any] = {
    "size": "1m",
    "steps": 8,
    "batch": 5,
    "warmup": 2,
    "learning_rate": 3e-3,
    "precision": "fp32",
    "micro_batch": 1,
    "checkpoint_every": 3,
    "validate_every": 3,  # just before a checkpoint, which holds shards in fp32 and the optimizer's state all the same
    "validation_rows": 5,
}


def _prepare(folder: Path, tokens: Artifact, **changes: Any) -> Run:
    store = Store(folder)
    (folder / "run").mkdir(parents=True, exist_ok=True)
    settings = TrainingConfig(**(SETTINGS | changes))
    return Run(
        url=store.url,
        folder="run",
        tokens_url=tokens.store.url,
        tokens=tokens.folder,
        tokens_digest=tokens.digest,
        config=settings.model_dump(mode="json"),
    )


def _path(run: Run, name: str = "") -> Path:
    return run.store.local_path(f"{run.folder}/{name}" if name else run.folder)


def _torchrun(run: Run, ranks: int) -> dict[str, Any]:
    run.clear_outcome()
    file = _path(run, "run.json")
    file.write_text(json.dumps(run.as_dict()))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
    command += ["--nproc-per-node", str(ranks), "--module", "stages.training", str(file)]
    if ranks == 1:
        command = [sys.executable, "-m", "stages.training", str(file)]
    done = subprocess.run(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, timeout=600
    )
    outcome = run.outcome()
    assert outcome is not None, done.stderr[-2000:]
    return outcome


def _losses(run: Run) -> list[float]:
    return pq.read_table(_path(run, HISTORY))["loss"].to_pylist()


def _first_norms(run: Run) -> list[float]:
    """Of the first update and of the weights after it: of all ranks' parts together."""
    history = pq.read_table(_path(run, HISTORY))
    return [history[name][0].as_py() for name in ("update_norm", "weight_norm")]


@pytest.fixture(scope="module")
def two(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A batch of 5 on two ranks: the first has a sequence less, and runs one of weight zero."""
    run = _prepare(tmp_path_factory.mktemp("two"), tokens_artifact)
    assert _torchrun(run, 2)["status"] == "finished"
    return run


def test_two_ranks_with_adamw_alone_agree_with_one(tokens_artifact, tmp_path):
    runs = [_prepare(tmp_path / str(ranks), tokens_artifact, optimizer="adamw", steps=4) for ranks in (1, 2)]
    assert [_torchrun(run, ranks)["status"] for run, ranks in zip(runs, (1, 2), strict=True)] == ["finished"] * 2
    assert _losses(runs[1]) == pytest.approx(_losses(runs[0]), rel=1e-4)
    assert _first_norms(runs[1]) == pytest.approx(_first_norms(runs[0]), rel=1e-3)


def test_two_ranks_agree_with_one_within_rounding(two: Run, tokens_artifact, tmp_path):
    one = _prepare(tmp_path, tokens_artifact)
    outcome = _torchrun(one, 1)
    assert outcome["details"]["world"] == 1 and two.outcome()["details"]["world"] == 2
    assert _losses(two) == pytest.approx(_losses(one), rel=1e-4)
    assert _first_norms(two) == pytest.approx(_first_norms(one), rel=1e-3)
    assert two.outcome()["metrics"]["bits_per_byte"] == pytest.approx(outcome["metrics"]["bits_per_byte"], rel=1e-4)
    ours, theirs = load_weights(_path(two, WEIGHTS)), load_weights(_path(one, WEIGHTS))
    assert ours.keys() == theirs.keys()
    # Adam makes a step of up to the learning rate of a gradient that is zero but for rounding: few, and not more.
    differences = torch.cat([(ours[name] - theirs[name]).abs().flatten() for name in ours])
    assert differences.max() < SETTINGS["learning_rate"] and differences.mean() < 1e-5


def test_two_ranks_resume_with_the_same_bits_and_one_takes_over(two: Run, tokens_artifact, tmp_path):
    run = _prepare(tmp_path, tokens_artifact)
    shutil.copytree(_path(two), _path(run), dirs_exist_ok=True)
    last = _path(run, "checkpoints/step-00000008")
    shutil.rmtree(last)
    assert _torchrun(run, 2)["status"] == "finished"
    assert _path(run, WEIGHTS).read_bytes() == _path(two, WEIGHTS).read_bytes()
    assert _losses(run) == _losses(two)
    shutil.rmtree(last)  # now one rank goes on from what two wrote
    assert _torchrun(run, 1)["status"] == "finished"
    assert _losses(run) == pytest.approx(_losses(two), rel=1e-4)
    events = map(json.loads, _path(run, "events.jsonl").read_text().splitlines())
    assert [(e["step"], e["world"]) for e in events if e["type"] == "restart"] == [(6, 2), (6, 1)]


def test_a_stop_file_stops_every_rank(tokens_artifact, tmp_path):
    run = _prepare(tmp_path, tokens_artifact)
    request_stop(run)
    outcome = _torchrun(run, 2)
    assert (outcome["status"], outcome["step"]) == ("stopped", 0)
    assert whole_checkpoints(run.store, "run/checkpoints") == ["run/checkpoints/step-00000000"]


def test_what_was_fetched_stays_until_every_rank_has_read_it(bucket: str, tmp_path: Path, monkeypatch) -> None:
    """A machine's ranks share what they fetch from an object store; the quicker one must not take it away."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store, seen = Store(bucket), []

    class Ranks:
        rank, world, alone = 0, 2, False

        def gather(self, value: Any) -> list[Any]:
            seen.append([path.name for path in (tmp_path / "cache").rglob("state.json")])
            return [value, value]

    state = b"{}"
    entry = {"path": "state.json", "bytes": len(state), "sha256": hashlib.sha256(state).hexdigest()}
    store.put("run/checkpoints/step-00000001/state.json", state)
    store.put("run/checkpoints/step-00000001/manifest.json", json.dumps({"files": [entry]}).encode())
    checkpoints = Checkpointer(store, "run/checkpoints", Ranks(), lambda *told: None)  # type: ignore[arg-type]
    assert checkpoints._fetch("run/checkpoints/step-00000001").is_dir()
    checkpoints.forget_fetched()
    assert seen == [["state.json"]], "all ranks met while it was there"
    assert not list((tmp_path / "cache").rglob("state.json"))
