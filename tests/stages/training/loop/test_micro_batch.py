"""What a rank computes at once, on CPUs and on GPUs of some size."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from models.presets import preset
from models.sizes import config_for_size
from stages.training.config import ParallelismConfig
from stages.training.loop.micro_batch import MicroBatches, gpu_memory
from stages.training.parallelism.ranks import Ranks

SHAPE = config_for_size("1.3b", 32_000, 2048)
GIB = 1 << 30


def _chosen(memory: int | None, **settings: Any) -> MicroBatches:
    return MicroBatches(ParallelismConfig(**settings), SHAPE, 1, torch.bfloat16, 64, 2048, memory)


def test_on_cpus_about_4096_tokens_and_no_recomputation():
    assert gpu_memory(Ranks(0, 1, 1, torch.device("cpu"))) is None
    chosen = _chosen(None)
    assert [chosen.rows(length) for length in (64, 256, 2048, 16384)] == [64, 16, 2, 1]
    assert chosen.activation_checkpointing == "none"


@pytest.mark.parametrize("gib", [40, 80, 141])
def test_on_gpus_it_is_the_preset_s(gib: int):
    chosen, expected = _chosen(gib * GIB), preset(SHAPE, 2048, 1, gib * GIB, max_micro_batch=64)
    assert chosen.rows(2048) == expected.micro_batch
    assert chosen.activation_checkpointing == expected.activation_checkpointing
    assert chosen.rows(1024) >= 2 * chosen.rows(2048)  # a phase of shorter sequences, checkpointed alike


def test_the_recipe_s_values_are_used():
    for memory in (None, 40 * GIB):
        chosen = _chosen(memory, micro_batch_size=3, activation_checkpointing="full")
        assert (chosen.rows(2048), chosen.activation_checkpointing) == (3, "full")
    assert _chosen(80 * GIB, activation_checkpointing="full").rows(2048) > _chosen(80 * GIB).rows(2048)
