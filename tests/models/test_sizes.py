"""Sizes against real counts of parameters."""

from __future__ import annotations

import pytest
import torch

from models.decoder import Decoder
from models.sizes import SIZES, config_for_size, parameters, training_flops
from tests.models.small import EOS


@pytest.mark.parametrize("name", SIZES)
def test_parameters_are_counted(name):
    config = config_for_size(name, 32_000, 2048)
    with torch.device("meta"):
        model = Decoder(config, EOS)
    assert parameters(config) == sum(p.numel() for p in model.parameters())
    assert config.vocabulary_size % 128 == 0
    assert training_flops(config, 2048) > 6 * (parameters(config) - 2 * 32_000 * config.hidden_size)


def test_sizes_are_what_they_are_called():
    small = {"1m": 4_096, "nano": 4_096, "7m": 8_192, "11m": 16_384, "30m": 16_384}
    for name in SIZES:
        config = config_for_size(name, small.get(name, 32_000), 2048)
        count, unit = (4.0, "m") if name == "nano" else (float(name[:-1]), name[-1])
        assert parameters(config) == pytest.approx(count * {"m": 1e6, "b": 1e9}[unit], rel=0.1)
        assert config.tied == (parameters(config) < 350e6)
        assert config.head_size == (64 if parameters(config) < 600e6 else 128)


def test_unknown_size_is_refused():
    with pytest.raises(ValueError, match="unknown model size '5x'"):
        config_for_size("5x", 100, 10)
