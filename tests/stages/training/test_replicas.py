"""HSDP on four real ranks: two copies of the model, each sharded over two ranks."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from torch import Tensor

from models.decoder import Decoder
from models.huggingface import load_weights
from models.loss import IGNORED
from models.memory import Checkpointing
from models.sizes import ModelConfig
from stages.artifact import Artifact, ConfigError
from stages.training import TrainingConfig
from stages.training.activation_checkpointing import checkpoint_layers
from stages.training.checks import check_ranks
from stages.training.loop import train
from stages.training.optimizer import clip_gradients
from stages.training.parallel import Ranks, join, last_micro_batch, place, set_values, shard
from stages.training.run import HISTORY, WEIGHTS, Run
from stages.training.sharded import whole
from tests.stages.training.ranks import on_ranks
from tests.stages.training.test_ranks import _path, _prepare

SHORT: dict[str, Any] = {"steps": 5, "checkpoint_every": 3, "validate_every": 5}


def _train(run: Run, ranks: int, folder: Path) -> None:
    run.clear_outcome()
    on_ranks(ranks, folder, train, run)
    outcome = run.outcome()
    assert outcome is not None and outcome["status"] == "finished", outcome


def _column(run: Run, name: str) -> list[float]:
    return pq.read_table(_path(run, HISTORY))[name].to_pylist()


@pytest.fixture(scope="module")
def four(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A batch of 5 on four ranks: the last three have a sequence each, and run one of weight zero."""
    folder = tmp_path_factory.mktemp("four")
    run = _prepare(folder, tokens_artifact, replicas=2, **SHORT)
    _train(run, 4, folder / "ranks")
    return run


@pytest.fixture(scope="module")
def one(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("one")
    run = _prepare(folder, tokens_artifact, **SHORT)
    _train(run, 1, folder / "ranks")
    return run


def test_two_copies_on_two_ranks_each_agree_with_one_process(four: Run, one: Run):
    assert _column(four, "loss") == pytest.approx(_column(one, "loss"), rel=1e-4)
    for norm in ("grad_norm", "update_norm", "weight_norm"):  # counted once, not once a copy
        ours, theirs = (_column(run, norm) for run in (four, one))
        both = [pair for pair in zip(ours, theirs, strict=True) if None not in pair]
        assert both and all(a == pytest.approx(b, rel=1e-3) for a, b in both), norm
    names = [load_weights(_path(run, WEIGHTS)).keys() for run in (four, one)]
    assert names[0] == names[1] and "lm_head.weight" not in names[0]


@pytest.mark.parametrize(("ranks", "replicas"), [(4, 2), (2, 1), (1, 1)])
def test_its_checkpoint_goes_on_anywhere(four: Run, tokens_artifact, tmp_path, ranks, replicas):
    run = _prepare(tmp_path, tokens_artifact, replicas=replicas, **SHORT)
    shutil.copytree(_path(four), _path(run), dirs_exist_ok=True)
    shutil.rmtree(_path(run, "checkpoints/step-00000005"))
    _train(run, ranks, tmp_path / "ranks")
    assert _column(run, "loss") == pytest.approx(_column(four, "loss"), rel=1e-4)
    if ranks == 4:
        assert _path(run, WEIGHTS).read_bytes() == _path(four, WEIGHTS).read_bytes()
    events = map(json.loads, _path(run, "events.jsonl").read_text().splitlines())
    assert [(e["step"], e["world"]) for e in events if e["type"] == "restart"] == [(3, ranks)]


def test_copies_that_do_not_divide_the_ranks_are_refused():
    with pytest.raises(ValueError, match=r"workers \(3\) is no multiple of training.replicas \(2\).*workers to 4"):
        TrainingConfig(workers=3, replicas=2)
    TrainingConfig(workers=0, replicas=2)  # under torchrun the number of ranks is not in the recipe
    with pytest.raises(ConfigError, match=r"replicas \(4\) does not divide .* \(6\).*one of 1, 2, 3, 6"):
        check_ranks(TrainingConfig(workers=0, replicas=4), 6)


Case = tuple[bool, int, bool, Checkpointing]
"""Tied head, copies, one unit that stays gathered or a unit a layer, checkpointing."""
CASES: list[Case] = [
    *itertools.product((True, False), (1, 2), (True, False), ("none",)),
    (True, 2, False, "selective"),
    (True, 1, False, "full"),
    (False, 4, False, "none"),
]

SHAPE = ModelConfig(96, 32, 3, 4, 2, 8, 80)
MICRO_BATCHES = 2


def _decoder(tied: bool) -> Decoder:
    config = ModelConfig(**(vars(SHAPE) | {"tied": tied}))
    with torch.device("meta"):
        return Decoder(config, 0)


def _awake(model: Decoder) -> None:
    """Lets gradients through the blocks, which begin as the identity."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.fill_(0.01)


def _rows(rank: int, world: int) -> list[tuple[Tensor, Tensor]]:
    """A rank's part of 8 sequences, as micro-batches."""
    tokens = torch.randint(0, 96, (8, 24), generator=torch.Generator().manual_seed(3))
    targets = torch.where(tokens > 5, tokens.roll(-1, 1), IGNORED)
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
    return list(zip(tokens[mine].chunk(MICRO_BATCHES), targets[mine].chunk(MICRO_BATCHES), strict=True))


def _gradients(cases: list[Case], result: Path) -> None:
    """One rank's part in the gradients of 8 sequences, for every way to shard."""
    ranks, found = join("cpu"), {}
    for tied, replicas, gathered, mode in cases:
        model = _decoder(tied)
        shard(model, ranks, replicas, gathered)
        set_values(model, ranks, 7)
        _awake(model)
        checkpoint_layers(model, mode)
        parts = _rows(ranks.rank, ranks.world)
        for number, (tokens, targets) in enumerate(parts):
            last_micro_batch(model, number == len(parts) - 1)
            model(tokens, targets, 0.1, 1e-3)[0].backward()
        norm = clip_gradients(model, 0.05, False, replicas)
        gradients = {name: whole(parameter.grad) for name, parameter in model.named_parameters()}
        found[tied, replicas, gathered, mode] = (norm, gradients)
    if ranks.rank == 0:
        torch.save(found, result)


def test_gradients_are_those_of_one_process_for_every_way_to_shard(tmp_path: Path) -> None:
    result = tmp_path / "found.pt"
    on_ranks(4, tmp_path / "ranks", _gradients, CASES, result)
    found = torch.load(result)
    for tied in (True, False):
        model = place(_decoder(tied), Ranks(0, 1, 1, torch.device("cpu")), 7)
        _awake(model)
        for tokens, targets in _rows(0, 1):
            model(tokens, targets, 0.1, 1e-3)[0].backward()
        norm = clip_gradients(model, 0.05, True)
        assert norm > 0.1, "clipping has something to do"
        expected = {name: parameter.grad for name, parameter in model.named_parameters()}
        assert ("lm_head.weight" in expected) != tied
        for case in (case for case in CASES if case[0] == tied):
            torch.testing.assert_close(found[case][0], norm, rtol=1e-5, atol=0, msg=str(case))
            assert found[case][1].keys() == expected.keys()
            for name, gradient in found[case][1].items():
                torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-7, msg=f"{case} {name}")
