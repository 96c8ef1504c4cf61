"""Config, schedule, data slices, validation: one process, no run."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.decoder import Decoder
from models.loss import IGNORED
from models.sizes import sized
from stages.artifact import ConfigError, canonical
from stages.tokens.reader import TokenReader
from stages.training.config import PhaseConfig, TrainingConfig
from stages.training.data import Batch, TrainingData
from stages.training.optimizer import build_optimizer
from stages.training.parallel import Ranks, place
from stages.training.precision import dense_peak, faster_format
from stages.training.schedule import factor, peak_learning_rate
from stages.training.validation import Validation
from tests.support import examples

ALONE = Ranks(0, 1, 1, torch.device("cpu"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": "5x"}, "no model size '5x'"),
        ({"stpes": 3}, "Extra inputs"),
        ({"batch": 9, "lanes": 2}, r"training\.batch \(9\) is no multiple of training\.lanes \(2\).*8 or 10 would be"),
        ({"weights": {"a": 1, "b": -1}}, "weights\n.*source 'b' has -1"),
        ({"weights": {"a": math.nan}}, "source 'a' has nan"),
        ({"weights": {"a": 0, "b": 0}}, "all weights are 0"),
        ({"steps": 30, "phases": [{"steps": 30, "weights": {"a": math.inf}}]}, r"phases\.0\.weights\n.*'a' has inf"),
        ({"steps": 30, "phases": [{"steps": 30, "repeat": {"a": 0}}]}, r"phases\.0\.repeat\n.*source 'a' has 0"),
        ({"steps": 30, "phases": [{"steps": 30, "repeat": -2.0}]}, r"phases\.0\.repeat\n.*it is -2"),
        ({"betas": [0.9, 1.0]}, r"betas\.1\n.*less than 1"),
        ({"k": 3}, "power of two"),
        ({"steps": 5, "warmup": 6}, "longer than the run"),
        ({"steps": 30, "skip": [[10, 10]]}, "not a range"),
        ({"steps": 30, "skip": [[10, 31]]}, "not a range"),
        ({"steps": 30, "phases": [{"steps": 10}]}, "10 steps together"),
        ({"steps": 30, "k": 2, "phases": [{"steps": 30}]}, "belong to each phase"),
    ],
)
def test_wrong_configs_are_refused(values, message):
    with pytest.raises(ValidationError, match=message):
        TrainingConfig.model_validate(values)


def test_how_is_not_part_of_the_name():
    config = TrainingConfig(steps=50, workers=4, micro_batch=3, device="cpu", precision="fp32", checkpoint_every=7)
    assert canonical(config) == {"steps": 50}


@given(st.sampled_from(["wsd", "cosine"]), st.integers(1, 300), st.integers(0, 300), st.floats(0, 1), st.floats(0, 1))
def test_schedules_warm_up_and_decay(schedule, steps, warmup, decay, last):
    config = TrainingConfig(
        schedule=schedule, steps=steps, warmup=min(warmup, steps), decay=decay, final_learning_rate=last
    )
    values = [factor(config, step) for step in range(steps)]
    assert all(max(0, min(last, values[0])) <= value <= 1 and value > 0 for value in values)
    rising = values[: config.warmup]
    assert rising == sorted(set(rising))
    after = values[config.warmup :]
    assert after == sorted(after, reverse=True)
    if after:
        assert after[0] == 1 or schedule == "wsd"
    flat = steps - round(decay * steps)
    assert schedule == "cosine" or all(value == 1 for value in values[config.warmup : flat])


@given(st.integers(2, 10_000), st.floats(0, 1))
def test_a_cosine_is_half_way_down_in_the_middle_and_ends_at_its_end(half, last):
    config = TrainingConfig(schedule="cosine", steps=2 * half + 10, warmup=10, final_learning_rate=last)
    assert factor(config, 10) == 1
    assert factor(config, 10 + half) == pytest.approx((1 + last) / 2)
    assert last < factor(config, config.steps - 1) + 1e-12 <= last + 2.5 * (1 - last) / half**2 + 1e-9
    assert factor(config, config.steps) == pytest.approx(last)


def test_the_schedule_is_part_of_the_name():
    assert canonical(TrainingConfig(schedule="cosine")) == {"schedule": "cosine"}


def test_peak_learning_rate_falls_with_size():
    shapes = [sized(name, 32_000, 2048) for name in ("nano", "125m", "7b")]
    peaks = [peak_learning_rate(TrainingConfig(), shape) for shape in shapes]
    assert peaks == sorted(peaks, reverse=True)
    assert peak_learning_rate(TrainingConfig(learning_rate=0.1), shapes[0]) == 0.1


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_norms_and_embedding_do_not_decay_and_muon_has_the_layers_matrices(optimizer: str):
    with torch.device("meta"):
        model = Decoder(sized("350m", 1000, 64), 0)
    built = build_optimizer(model, TrainingConfig(optimizer=optimizer), 1e-3, torch.float32)
    names = {id(p): name for name, p in model.named_parameters()}
    decayed, kept, *hidden = [{names[id(p)] for p in group["params"]} for group in built.param_groups]
    assert [group["weight_decay"] for group in built.param_groups] == [0.1, 0.0, 0.1][: 2 + len(hidden)]
    assert kept == {name for name in names.values() if "norm" in name or "embed" in name}
    matrices = {name for name in names.values() if ".layers." in name and "norm" not in name}
    assert hidden == ([matrices] if optimizer == "muon" else [])
    assert sorted([*decayed, *kept, *(name for part in hidden for name in part)]) == sorted(names.values())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("config", [{"batch": 7}, {"batch": 12, "lanes": 3}, {"batch": 8, "k": 2}])
@pytest.mark.parametrize("world", [2, 3, 5, 16])
def test_ranks_share_a_batch_out(tokens_folder: Path, config, world):
    settings_ = TrainingConfig(steps=25, **config)
    whole = TrainingData(tokens_folder, "d", settings_, 0, 1)
    parts = [TrainingData(tokens_folder, "d", settings_, rank, world) for rank in range(world)]
    for number in (0, 3, 24):
        batch = whole.batch(number)
        rows = [part.batch(number) for part in parts]
        tokens = torch.cat([row.tokens for row in rows])
        assert sorted(map(tuple, tokens.tolist())) == sorted(map(tuple, batch.tokens.tolist()))
        assert sum(row.valid for row in rows) == batch.valid > 0
        assert max(len(row.tokens) for row in rows) == parts[0].most_rows
        assert batch.tokens.shape[1] == whole.sequence_length(number) - 1


def test_targets_are_the_next_token_of_the_same_document(tokens_folder: Path):
    reader = TokenReader(tokens_folder)
    rows = reader.batch([(0, 0, 2), (1, 0, 5)])
    batch = Batch.of(rows, reader.eos_id)
    for row, tokens, targets in zip(rows, batch.tokens.tolist(), batch.targets.tolist(), strict=True):
        assert tokens == row[:-1].tolist()
        for at, target in enumerate(targets):
            assert target == (IGNORED if row[at] == reader.eos_id else row[at + 1])
    assert reader.eos_id in batch.targets  # stopping is learned


def test_phases_change_the_sample_s_length(tokens_folder: Path):
    phases = (PhaseConfig(steps=2), PhaseConfig(steps=2, k=2, weights={"beta": 1.0}))
    data = TrainingData(tokens_folder, "d", TrainingConfig(steps=4, batch=4, warmup=1, phases=phases), 0, 1)
    assert [data.batch(n).tokens.shape for n in range(4)] == [(4, 63), (4, 63), (4, 127), (4, 127)]


def test_unknown_source_is_refused(tokens_folder: Path):
    config = TrainingConfig(weights={"gamma": 1.0})
    with pytest.raises(ConfigError, match="unknown source 'gamma'; there are alpha, beta"):
        TrainingData(tokens_folder, "d", config, 0, 1)


@examples(3)
@given(st.integers(1, 9))
def test_validation_equals_a_naive_sum(tokens_folder_, micro_batch):
    reader = TokenReader(tokens_folder_, "heldout")
    with torch.device("meta"):
        model = Decoder(sized("1m", reader.vocabulary_size, 64), reader.eos_id)
    place(model, ALONE, seed=3)
    validation = Validation(tokens_folder_, 10)
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


def test_validation_on_one_source_s_rows_tells_of_no_other(tokens_folder_):
    reader = TokenReader(tokens_folder_, "heldout")
    with torch.device("meta"):
        model = Decoder(sized("1m", reader.vocabulary_size, 64), reader.eos_id)
    place(model, ALONE, seed=3)
    validation = Validation(tokens_folder_, 1)
    found = validation.bits_per_byte(model, ALONE, 4)
    assert found is not None and found.by_source == {"alpha": found.total}
    validation.rows = []
    assert validation.bits_per_byte(model, ALONE, 4) is None


@pytest.fixture(scope="session")
def tokens_folder_(tokens_artifact) -> Path:
    return tokens_artifact.local()


def test_number_format_is_one_of_two():
    assert faster_format(torch.device("cpu")) in ("bf16", "fp32")


@pytest.mark.parametrize(
    ("card", "teraflops"),
    [
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA H200", 989),
        ("NVIDIA GH200 480GB", 989),
        ("NVIDIA A100-SXM4-80GB", 312),
        ("NVIDIA L40S", 362),
        ("NVIDIA L4", 121),
    ],
)
def test_known_cards_have_a_dense_peak(card, teraflops):
    assert dense_peak(card) == teraflops * 1e12


def test_an_unknown_card_has_none():
    assert dense_peak("NVIDIA L400 Imagined") is None
