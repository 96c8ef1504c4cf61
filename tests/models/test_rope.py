"""Cosine and sine of rotary positions: tables on the host, the same as computed for each position."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.decoder import rotary
from models.rope import RopeScaling, frequencies
from models.sizes import config_for_size


@pytest.mark.parametrize("scaling", [None, RopeScaling("linear", 4.0), RopeScaling("yarn", 4.0, 64)])
def test_the_tables_hold_what_every_position_s_angle_gives(scaling: RopeScaling | None) -> None:
    config = replace(config_for_size("1m", 256, 128), rope_scaling=scaling)
    positions = torch.tensor([[*range(100)], [*range(60), *range(40)]])
    frequency, factor = frequencies(config.head_size, config.rope_theta, scaling)
    angles = positions.double()[:, :, None, None] * frequency.double()
    for found, function in zip(rotary(positions, config), (torch.cos, torch.sin), strict=True):
        assert found.dtype == torch.float32 and found.shape == (2, 100, 1, config.head_size // 2)
        torch.testing.assert_close(found, (function(angles) * factor).float(), atol=2e-5, rtol=0)
