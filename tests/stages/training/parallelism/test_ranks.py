"""HSDP on four real ranks: two copies of the model, each sharded over two ranks."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor

from models import IGNORE_INDEX
from models.decoder import Decoder
from models.memory import Checkpointing
from models.sizes import ModelConfig
from stages.store import Artifact, ConfigError
from stages.training.config import DataConfig, ParallelismConfig
from stages.training.optim.optimizers import clip_gradients
from stages.training.parallelism.activation_checkpointing import checkpoint_layers
from stages.training.parallelism.ranks import (
    Ranks,
    init_distributed,
    parallelize,
    set_last_micro_batch,
    set_values,
    shard,
)
from stages.training.parallelism.sharded import whole
from stages.training.preflight.checks import check_ranks
from stages.training.run import Run
from tests.stages.training.prepared import column, prepare, prepare_from, restarts, train_on, weights_at
from tests.stages.training.ranks import on_ranks


@pytest.fixture(scope="module")
def four(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A batch of 5 on four ranks: the last three have a sequence each, and run one of weight zero."""
    run = prepare(
        tmp_path_factory.mktemp("four"), tokens_artifact, parallelism__workers=4, parallelism__shards_per_replica=2
    )
    assert train_on(4, run)["status"] == "finished"
    return run


def test_two_copies_on_two_ranks_each_agree_with_one_process(four: Run, alone: Run):
    assert column(four, "loss") == pytest.approx(column(alone, "loss"), rel=1e-4)
    for norm in ("grad_norm", "update_norm", "weight_norm"):  # counted once, not once a copy
        ours, theirs = (column(run, norm) for run in (four, alone))
        both = [pair for pair in zip(ours, theirs, strict=True) if None not in pair]
        assert both and all(a == pytest.approx(b, rel=1e-3) for a, b in both), norm
    names = [weights_at(run).keys() for run in (four, alone)]
    assert names[0] == names[1] and "lm_head.weight" not in names[0]


@pytest.mark.parametrize(("ranks", "shards"), [(4, 2), (2, None), (1, None)])
def test_its_checkpoint_is_loaded_by_any_number_of_ranks(four: Run, tokens_artifact, tmp_path, ranks, shards):
    changes = {"parallelism__workers": ranks, "parallelism__shards_per_replica": shards}
    run = prepare_from(four, tmp_path, tokens_artifact, 3, **changes)
    assert train_on(ranks, run)["status"] == "finished"
    assert column(run, "loss") == pytest.approx(column(four, "loss"), rel=1e-4)
    if ranks == 4:
        assert weights_at(run) == weights_at(four)
    assert restarts(run) == [(3, ranks)]


def test_copies_that_do_not_divide_the_ranks_are_refused():
    with pytest.raises(ValueError, match=r"workers \(3\) is not a multiple .*replica \(2\).*workers to 4"):
        ParallelismConfig(workers=3, shards_per_replica=2)
    # Under torchrun the number of ranks is not in the recipe.
    torchrun = ParallelismConfig(workers=0, shards_per_replica=4)
    with pytest.raises(ConfigError, match=r"shards_per_replica \(4\) does not divide .* \(6\).*one of 1, 2, 3, 6"):
        check_ranks(DataConfig(), torchrun, 6)
    assert torchrun.replicas(8) == 2 and ParallelismConfig(workers=3).replicas(3) == 1


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


def _break_identity(model: Decoder) -> None:
    """Lets gradients through the blocks, which begin as the identity."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                parameter.fill_(0.01)


def _rows(rank: int, world: int) -> list[tuple[Tensor, Tensor]]:
    """A rank's part of 8 sequences, as micro-batches."""
    tokens = torch.randint(0, 96, (8, 24), generator=torch.Generator().manual_seed(3))
    targets = torch.where(tokens > 5, tokens.roll(-1, 1), IGNORE_INDEX)
    mine = slice(rank * 8 // world, (rank + 1) * 8 // world)
    return list(zip(tokens[mine].chunk(MICRO_BATCHES), targets[mine].chunk(MICRO_BATCHES), strict=True))


def _gradients(cases: list[Case], result: Path) -> None:
    """One rank's part in the gradients of 8 sequences, for every way to shard."""
    ranks, found = init_distributed("cpu"), {}
    for tied, replicas, gathered, mode in cases:
        model = _decoder(tied)
        shard(model, ranks, replicas, gathered)
        set_values(model, ranks, 7)
        _break_identity(model)
        checkpoint_layers(model, mode)
        parts = _rows(ranks.rank, ranks.world)
        for number, (tokens, targets) in enumerate(parts):
            set_last_micro_batch(model, number == len(parts) - 1)
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
        model = parallelize(_decoder(tied), Ranks(0, 1, 1, torch.device("cpu")), 7)
        _break_identity(model)
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
