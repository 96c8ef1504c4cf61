"""Initial values."""

from __future__ import annotations

import math

import pytest
import torch

from models.decoder import Decoder
from models.sizes import config_for_size
from tests.models.small import EOS, initialize, small_shape


def test_a_new_model_knows_nothing():
    model = Decoder(config_for_size("1m", 4096, 64), EOS)
    initialize(model, seed=0)
    tokens = torch.randint(4, 4096, (4, 64))
    _, nats = model(tokens, tokens.roll(-1, 1))
    assert nats.mean().item() == pytest.approx(math.log(4096), abs=0.1)


def test_initial_values_depend_on_the_seed_only():
    first, same, other = (Decoder(small_shape(False), EOS) for _ in range(3))
    for model, seed in ((first, 5), (same, 5), (other, 6)):
        torch.manual_seed(id(model) % 1000)
        initialize(model, seed)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.lm_head.weight, other.lm_head.weight)
