"""Bits per byte of held-out rows, against a sum over their tokens."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from models.decoder import Decoder
from models.sizes import config_for_size
from stages.store import Artifact
from stages.tokens.reader import TokenReader
from stages.training.loop.validation import Validation
from stages.training.parallelism.ranks import Ranks, parallelize
from tests.support import examples

ALONE = Ranks(0, 1, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def held_out(tokens_artifact: Artifact) -> Path:
    return tokens_artifact.local()


@examples(3)
@given(st.integers(1, 9))
def test_validation_equals_a_naive_sum(held_out, micro_batch):
    reader = TokenReader(held_out, "heldout")
    with torch.device("meta"):
        model = Decoder(config_for_size("1m", reader.vocabulary_size, 64), reader.eos_id)
    parallelize(model, ALONE, seed=3)
    validation = Validation(held_out, 10)
    assert len(set(validation.rows)) == 10
    nats, size = [0.0, 0.0], [0, 0]
    for source, shard, row in validation.rows:
        tokens = torch.from_numpy(reader.rows(source, shard, row).astype(np.int64))
        costs = -torch.log_softmax(model(tokens[None])[0].double(), 1)
        for place_, following in enumerate(tokens[1:].tolist()):
            if reader.eos_id not in (int(tokens[place_]), following):
                nats[source] += costs[place_, following].item()
                size[source] += int(reader.token_bytes[following])
    found = validation.bits_per_byte(model, ALONE, micro_batch)
    assert found is not None and reader.shards.sources == ("alpha", "beta")
    assert found.total == pytest.approx(sum(nats) / math.log(2) / sum(size), rel=1e-5)
    expected = {name: nats[s] / math.log(2) / size[s] for s, name in enumerate(reader.shards.sources)}
    assert found.by_source == pytest.approx(expected, rel=1e-5)


def test_validation_on_one_source_s_rows_reports_that_source_only(held_out):
    reader = TokenReader(held_out, "heldout")
    with torch.device("meta"):
        model = Decoder(config_for_size("1m", reader.vocabulary_size, 64), reader.eos_id)
    parallelize(model, ALONE, seed=3)
    validation = Validation(held_out, 1)
    found = validation.bits_per_byte(model, ALONE, 4)
    assert found is not None and found.by_source == {"alpha": found.total}
    validation.rows = []
    assert validation.bits_per_byte(model, ALONE, 4) is None
