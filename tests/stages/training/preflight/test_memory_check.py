"""A model that does not fit is refused, and the message proposes settings that do; one that fits is accepted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from stages.store import Artifact, ConfigError, Store
from stages.training.loop import setup
from stages.training.preflight.memory_check import GIB, Demand, alternatives, check_memory
from tests.stages.training.prepared import events, make

GPU = Demand("7b", 32_000, 2048, 8, "none", 2, workers=8, replicas=1, sharing=1, host=False)
HOST = Demand("125m", 16_384, 512, 8, "none", 4, workers=2, replicas=1, sharing=2, host=True)


def test_a_model_that_fits_is_accepted():
    for demand in (GPU, HOST):
        check_memory(demand, demand.estimate())
        check_memory(demand, demand.least())


@pytest.mark.parametrize("demand", [GPU, HOST, replace(HOST, size="2.7b"), replace(GPU, size="70b", workers=64)])
@pytest.mark.parametrize("share", [0.1, 0.3, 0.9])
def test_proposed_settings_fit_and_are_in_the_message(demand: Demand, share: float):
    available = int(demand.least() * share)
    proposed = alternatives(demand, available)
    assert proposed
    with pytest.raises(ConfigError) as caught:
        check_memory(demand, available)
    for option in proposed:
        assert option != demand and option.estimate() <= available
        check_memory(option, available)
        settings = {"size": "model.size", "micro_batch_size": "parallelism.micro_batch_size"}
        for field, setting in settings.items():
            value = getattr(option, field)
            assert (f"training.{setting}: {value}" in str(caught.value)) or value == getattr(demand, field)


def test_the_message_names_the_parts_and_the_available_memory():
    with pytest.raises(ConfigError) as caught:
        check_memory(GPU, 20 * GIB)
    message = str(caught.value)
    assert re.match(
        r"training: size 7b does not fit: it needs about \d+\.\d GiB on each GPU \(weights 3\.\d, ", message
    )
    assert (
        "and 20.0 GiB are available; one of these would fit: training.parallelism.micro_batch_size: 1 with " in message
    )
    assert "training.parallelism.activation_checkpointing: full" in message
    with pytest.raises(ConfigError, match="not even the smallest size would fit"):
        check_memory(replace(HOST, workers=1, sharing=1), 1 << 20)


def test_a_machine_s_workers_share_its_memory():
    one = replace(HOST, workers=1, sharing=1)
    assert HOST.estimate() > 1.5 * one.estimate()
    with pytest.raises(ConfigError, match=r"2 workers with \d.*training\.parallelism\.workers: 1 "):
        check_memory(HOST, one.estimate())


def test_a_run_is_refused_before_it_allocates(tokens_artifact: Artifact, tmp_path: Path, monkeypatch):
    monkeypatch.setattr(setup, "parallelize", lambda *_: pytest.fail("nothing may be allocated"))
    store = Store(tmp_path)
    with pytest.raises(ConfigError, match=r"size 70b does not fit.*GiB on this machine.*training\.model\.size: "):
        make(store, tokens_artifact, model__size="70b")
    assert not events(store, "step")
