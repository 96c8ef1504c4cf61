"""The estimate of memory against what PyTorch allocates on this machine's CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.attention_cpu import BucketLayout
from models.decoder import Decoder, Layer, rotary
from models.lora import Lora, add_adapters
from models.memory import Memory, training_memory
from models.sizes import ModelConfig, config_for_size, parameters
from tests.models.live_bytes import LiveBytes, saved_bytes
from tests.models.small import initialize

SHAPE = ModelConfig(1024, 64, 6, 4, 2, 16, 192)


def _estimate(config: ModelConfig, dtype: torch.dtype, **changes) -> Memory:
    settings = {"micro_batch": 4, "sequence_length": 64, "shards": 1, "checkpointing": "none", "host": True}
    return training_memory(config, **(settings | {"bytes_per_activation": dtype.itemsize} | changes))


@pytest.mark.parametrize("architecture", ["Qwen3ForCausalLM", "LlamaForCausalLM"])
def test_what_a_layer_keeps(architecture):
    config = replace(SHAPE, architecture=architecture)
    layer = Layer(config)
    initialize(layer, seed=0)
    positions = torch.arange(64).expand(4, 64)
    rotation, layout = rotary(positions, config), BucketLayout(positions, 4, 2)
    x = torch.randn(4, 64, 64, requires_grad=True)
    with saved_bytes([*layer.parameters(), *rotation]) as found:
        layer(x, None, rotation, layout)
    one, two = (_estimate(replace(config, layers=n), torch.float32) for n in (1, 2))
    one, two = (estimate.activations + estimate.gathered for estimate in (one, two))
    assert 0.95 < found[0] / (two - one) < 1.02


def _assert_estimated(model: Decoder, expected: Memory) -> None:
    """What lasts, and the peak of a step, are what was estimated."""
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], fused=True)

    def step() -> None:
        tokens, targets = torch.randint(1, 1000, (2, 4, 64))
        model(tokens, targets, 1.0, 1e-5)[0].backward()
        optimizer.step()
        optimizer.zero_grad()

    step()
    state_tensors = [value for state in optimizer.state.values() for value in state.values()]
    live = LiveBytes([*model.parameters(), *state_tensors])
    assert live.now == pytest.approx(expected.weights + expected.optimizer_state, rel=0.01)
    with live:
        step()
    assert 0.7 < live.peak / expected.total < 1.02


@pytest.mark.parametrize(
    ("tied", "architecture", "dtype"),
    [
        (True, "Qwen3ForCausalLM", torch.float32),
        (False, "LlamaForCausalLM", torch.float32),
        (True, "Qwen2ForCausalLM", torch.float32),
        (False, "Qwen3ForCausalLM", torch.bfloat16),
    ],
)
def test_the_peak_of_a_step(tied, architecture, dtype):
    config = replace(SHAPE, tied=tied, architecture=architecture)
    model = Decoder(config, 0, dtype)
    initialize(model, seed=0)
    _assert_estimated(model, _estimate(config, dtype))


@pytest.mark.parametrize(("dtype", "kind"), [(torch.float32, "LlamaForCausalLM"), (torch.bfloat16, "Qwen3ForCausalLM")])
def test_the_peak_of_a_step_of_adapters(dtype, kind):
    config, lora = replace(SHAPE, architecture=kind), Lora(8, 16.0)
    model = Decoder(config, 0, dtype)
    add_adapters(model, lora)
    initialize(model, seed=0)
    expected, full = _estimate(config, dtype, lora=lora), _estimate(config, dtype)
    _assert_estimated(model, expected)
    assert expected.total < 0.8 * full.total


def test_shards_share_weights_gradients_and_optimizer_state():
    config = config_for_size("7b", 32_000, 2048)
    one, eight = (_estimate(config, torch.bfloat16, shards=shards, host=False) for shards in (1, 8))
    assert one.weights == 4 * parameters(config) and one.optimizer_state == 8 * parameters(config)
    assert eight.weights * 8 == one.weights and eight.gradients * 8 == one.gradients
    assert eight.optimizer_state * 8 == one.optimizer_state and eight.activations == one.activations
    assert eight.gathered < one.gathered


def test_checkpointing_trades_memory_for_work():
    config = config_for_size("7b", 32_000, 2048)
    found = [
        _estimate(config, torch.bfloat16, checkpointing=how, host=False).activations
        for how in ("none", "selective", "full")
    ]
    assert found[0] > 1.5 * found[1] > 6 * found[2]
