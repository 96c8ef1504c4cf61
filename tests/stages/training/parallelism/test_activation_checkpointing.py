"""Layers that recompute activations: the same bits, fewer bytes, the same names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, get_args

import pytest
import torch

from models.decoder import Decoder
from models.memory import Checkpointing, training_memory
from models.sizes import ModelConfig
from stages.training.parallelism.activation_checkpointing import checkpoint_layers
from tests.models.live_bytes import LiveBytes
from tests.models.small import initialize

SHAPE = ModelConfig(256, 64, 6, 4, 2, 16, 192)
MODES = get_args(Checkpointing)


def _model(mode: Any, config: ModelConfig = SHAPE) -> Decoder:
    model = Decoder(config, 0)
    initialize(model, seed=0)
    for layer in model.model.layers:  # they begin as the identity, through which no gradient flows
        torch.nn.init.normal_(layer.self_attn.o_proj.weight, std=0.02)
        torch.nn.init.normal_(layer.mlp.down_proj.weight, std=0.02)
    checkpoint_layers(model, mode)
    return model


def _batch() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.randint(0, 9, (2, 4, 64), generator=generator)  # an EOS, 0, every nine tokens


@pytest.mark.parametrize("mode", MODES[1:])
def test_gradients_have_the_same_bits(mode):
    gradients = []
    for each in ("none", mode):
        torch.manual_seed(0)
        model = _model(each)
        model(*_batch())[0].backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    assert gradients[0].keys() == gradients[1].keys()
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])
    assert all(gradient.any() for gradient in gradients[0].values())


def test_parameter_names_do_not_change():
    names = [list(_model(mode).state_dict()) for mode in MODES]
    assert names[0] == names[1] == names[2]
    restored = _model("none")
    restored.load_state_dict(_model("full").state_dict())


@pytest.mark.parametrize("mode", MODES)
def test_bytes_that_a_layer_saves_for_its_backward_pass(mode):
    """One document a row, so that attention pads nothing; on a CPU selective checkpointing recomputes attention."""
    tokens, targets = _batch()
    tokens += 1
    kept, expected = [], []
    for layers in (2, 6):
        config = replace(SHAPE, layers=layers)
        model = _model(mode, config)
        live = LiveBytes(model.parameters())
        before = live.now
        with live:
            loss, _ = model(tokens, targets)
        kept.append(live.now - before)
        loss.backward()
        expected.append(
            training_memory(
                config,
                micro_batch=4,
                sequence_length=64,
                shards=1,
                checkpointing=mode,
                bytes_per_activation=4,
                host=True,
            )
        )
    weights = expected[1].gathered - expected[0].gathered if mode == "none" else 0  # laid side by side
    estimate = expected[1].activations - expected[0].activations + weights
    assert 0.7 < (kept[1] - kept[0]) / estimate < 1.02
