"""The product that a machine's rate is taken from is no longer than it needs to be."""

from __future__ import annotations

import pytest
import torch

from stages.training import precision

CPU = torch.device("cpu")


def _timed(monkeypatch: pytest.MonkeyPatch, rate: float) -> list[int]:
    """Pretends that products go at so many operations a second; returns the sizes that are asked for."""
    sizes: list[int] = []

    def seconds(dtype: torch.dtype, device: torch.device, size: int, repeats: int) -> float:
        sizes.append(size)
        return 2 * size**3 / rate

    monkeypatch.setattr(precision, "_seconds", seconds)
    return sizes


@pytest.mark.parametrize(
    ("rate", "largest"),
    [(0.3e9, 256), (60e9, 1024), (900e9, 2048)],
    ids=["emulated", "fp32", "bf16"],
)
def test_a_slow_format_is_judged_by_a_small_product(monkeypatch, rate, largest):
    sizes = _timed(monkeypatch, rate)
    assert precision.product_rate(torch.bfloat16, CPU) == pytest.approx(rate)
    assert max(sizes) == sizes[-1] == largest


def test_the_rate_is_that_of_a_product():
    assert precision.product_rate(torch.float32, CPU, size=64) > 0
