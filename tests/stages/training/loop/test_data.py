"""A rank's part of every batch, and what is to be predicted in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models import IGNORE_INDEX
from stages.store import ConfigError
from stages.tokens.reader import TokenReader
from stages.training.config import DataConfig, PhaseConfig, TrainingConfig
from stages.training.loop.data import Batch, TrainingData
from tests.support import training_config


@pytest.mark.parametrize(
    "config",
    [
        {"global_batch_size": 7},
        {"global_batch_size": 12, "streams": 3},
        {"global_batch_size": 8, "rows_per_sample": 2},
    ],
)
@pytest.mark.parametrize("world", [2, 3, 5, 16])
def test_ranks_share_a_batch_out(tokens_folder: Path, config, world):
    settings_ = TrainingConfig(steps=25, data=DataConfig(**config))
    whole = TrainingData(tokens_folder, "d", settings_, 0, 1)
    parts = [TrainingData(tokens_folder, "d", settings_, rank, world) for rank in range(world)]
    for number in (0, 3, 24):
        batch = whole.batch(number)
        rows = [part.batch(number) for part in parts]
        tokens = torch.cat([row.tokens for row in rows])
        assert sorted(map(tuple, tokens.tolist())) == sorted(map(tuple, batch.tokens.tolist()))
        assert sum(row.valid for row in rows) == batch.valid > 0
        assert max(len(row.tokens) for row in rows) == parts[0].max_rows
        assert batch.tokens.shape[1] == whole.sequence_length(number) - 1


def test_targets_are_the_next_token_of_the_same_document(tokens_folder: Path):
    reader = TokenReader(tokens_folder)
    rows = reader.batch([(0, 0, 2), (1, 0, 5)])
    batch = Batch.of(rows, reader.eos_id)
    for row, tokens, targets in zip(rows, batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        assert tokens == row[:-1].tolist()
        for at, target in enumerate(targets):
            assert target == (IGNORE_INDEX if row[at] == reader.eos_id else row[at + 1])
    assert reader.eos_id in batch.targets  # stopping is learned


def test_phases_change_the_sample_s_length(tokens_folder: Path):
    phases = (PhaseConfig(steps=2), PhaseConfig(steps=2, rows_per_sample=2, weights={"beta": 1.0}))
    config = training_config(steps=4, data__global_batch_size=4, schedule__warmup_steps=1, data__phases=phases)
    data = TrainingData(tokens_folder, "d", config, 0, 1)
    assert [data.batch(n).tokens.shape for n in range(4)] == [(4, 63), (4, 63), (4, 127), (4, 127)]


def test_unknown_source_is_refused(tokens_folder: Path):
    config = training_config(data__weights={"gamma": 1.0})
    with pytest.raises(ConfigError, match="unknown source 'gamma'; known sources: alpha, beta"):
        TrainingData(tokens_folder, "d", config, 0, 1)
