"""AdamW: PyTorch's own, bit for bit."""

from __future__ import annotations

import torch
from torch import nn

from stages.training.optim.adamw import AdamW


def _parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    return [nn.Parameter(torch.randn(shape, generator=generator)) for shape in ((7, 5), (5,), (3, 2))]


def test_updates_are_those_of_pytorch():
    ours, theirs = _parameters(), _parameters()
    mine = AdamW(
        [{"params": ours[:2], "weight_decay": 0.1}, {"params": ours[2:], "weight_decay": 0.0}], 1e-2, (0.9, 0.95)
    )
    reference = torch.optim.AdamW(
        [{"params": theirs[:2], "weight_decay": 0.1}, {"params": theirs[2:], "weight_decay": 0.0}],
        lr=1e-2,
        betas=(0.9, 0.95),
        eps=1e-8,
        fused=True,
    )
    generator = torch.Generator().manual_seed(4)
    for step in range(5):
        for own, other in zip(ours, theirs, strict=True):
            # One parameter has no gradient at first: its count of updates lags behind.
            own.grad = None if step < 2 and own is ours[1] else torch.randn(own.shape, generator=generator)
            other.grad = None if own.grad is None else own.grad.clone()
        for group in (*mine.param_groups, *reference.param_groups):
            group["lr"] = 1e-2 / (step + 1)
        mine.step()
        reference.step()
    for own, other in zip(ours, theirs, strict=True):
        assert torch.equal(own, other)
        assert mine.averages(own).keys() == {"exp_avg", "exp_avg_sq"}
        for name, average in mine.averages(own).items():
            assert torch.equal(average, reference.state[other][name])
        assert mine.state[own]["step"] == reference.state[other]["step"] == (3 if own is ours[1] else 5)


def test_a_new_parameter_s_averages_are_zeros_and_stay_the_optimizer_s_own():
    parameter = nn.Parameter(torch.ones(4))
    adam = AdamW([{"params": [parameter], "weight_decay": 0.0}], 0.1, (0.9, 0.95))
    averages = adam.averages(parameter)
    assert all(not average.any() for average in averages.values())
    parameter.grad = torch.full((4,), 2.0)
    adam.step()
    torch.testing.assert_close(averages["exp_avg"], torch.full((4,), 0.2))
