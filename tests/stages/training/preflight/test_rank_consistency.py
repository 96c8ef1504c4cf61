"""Ranks that run other software than the rest are refused by name."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from infra.settings import REPOSITORY
from stages.store import Artifact
from stages.training.errors import TrainingError
from stages.training.loop.loop import train
from stages.training.preflight.rank_consistency import (
    SOURCES,
    Process,
    check_rank_consistency,
    describe_process,
    source_digest,
)
from stages.training.run import Run
from tests.stages.training.prepared import prepare
from tests.stages.training.ranks import on_ranks


def _train_with_another_numpy(run: Run) -> None:
    import numpy

    if os.environ["RANK"] == "1":
        numpy.__version__ = "1.0.0"
    train(run)


def test_a_rank_with_another_version_ends_the_run_before_the_first_step(tokens_artifact: Artifact, tmp_path: Path):
    import numpy

    run = prepare(tmp_path, tokens_artifact, steps=2)
    on_ranks(2, tmp_path / "ranks", _train_with_another_numpy, run)
    outcome = run.outcome()
    assert outcome is not None and outcome["status"] == "failed" and outcome["kind"] == "TrainingError"
    assert f"numpy is {numpy.__version__} on " in outcome["error"] and "but 1.0.0 on " in outcome["error"]
    assert "(rank 1)" in outcome["error"] and "PyTorch" not in outcome["error"]


def test_sides_are_named_by_host_the_largest_first():
    new, old = {"PyTorch": "2.13.0", "numpy": "2.4"}, {"PyTorch": "2.12.1", "numpy": "2.4"}
    processes = [Process("a", old), *[Process(f"h{rank // 2}", new) for rank in range(1, 16)]]
    check_rank_consistency(processes[1:])
    with pytest.raises(TrainingError) as caught:
        check_rank_consistency(processes)
    assert str(caught.value) == (
        "training: the workers do not run the same software: PyTorch is 2.13.0 on h0 (rank 1), h1 (ranks 2, 3), "
        "h2 (ranks 4, 5), h3 (ranks 6, 7) and 4 more, but 2.12.1 on a (rank 0); install the same on every machine"
    )


def test_ranks_that_share_a_gpu_are_refused():
    versions = {"numpy": "2.4"}
    check_rank_consistency([Process(host, versions, card) for host in "ab" for card in ("GPU-1", "GPU-2")])
    with pytest.raises(TrainingError, match="ranks 0, 2 of a share the GPU GPU-1"):
        check_rank_consistency([Process("a", versions, card) for card in ("GPU-1", "GPU-2", "GPU-1")])


def test_a_changed_line_of_what_workers_run_is_another_version(tmp_path: Path):
    for folder in SOURCES:
        shutil.copytree(REPOSITORY / folder, tmp_path / folder)
    here = source_digest(REPOSITORY)
    assert source_digest(tmp_path) == here == describe_process(cuda=False).versions["Headwater's source"]
    seen = {here}
    for changed in ("decoder.py", "kernels/cpu.c"):
        with (tmp_path / "models" / changed).open("a") as file:
            file.write("\n")
        assert source_digest(tmp_path) not in seen
        seen.add(source_digest(tmp_path))
