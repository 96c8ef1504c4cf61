"""Which parameter goes to which optimizer, and decays."""

from __future__ import annotations

import pytest
import torch

from models.decoder import Decoder
from models.sizes import config_for_size
from stages.training.config import OptimizerConfig, ScheduleConfig
from stages.training.optim.optimizers import build_optimizers
from stages.training.optim.schedule import LearningRateSchedule


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_norms_and_embedding_do_not_decay_and_muon_has_the_layers_matrices(optimizer: str):
    with torch.device("meta"):
        model = Decoder(config_for_size("350m", 1000, 64), 0)
    built = build_optimizers(
        model, OptimizerConfig(name=optimizer), LearningRateSchedule(ScheduleConfig(), 1e-3, 10), torch.float32
    )
    names = {id(p): name for name, p in model.named_parameters()}
    groups = [group for part in built.optimizers for group in part.param_groups]
    decayed, kept, *hidden = [{names[id(p)] for p in group["params"]} for group in groups]
    assert all(isinstance(part, torch.optim.Optimizer) for part in built.optimizers)
    assert [group["weight_decay"] for group in groups] == [0.1, 0.0, 0.1][: 2 + len(hidden)]
    assert kept == {name for name in names.values() if "norm" in name or "embed" in name}
    matrices = {name for name in names.values() if ".layers." in name and "norm" not in name}
    assert hidden == ([matrices] if optimizer == "muon" else [])
    assert sorted([*decayed, *kept, *(name for part in hidden for name in part)]) == sorted(names.values())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    built.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())
