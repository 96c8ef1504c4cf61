"""The first batch after a restart is compared with what it gave before."""

from __future__ import annotations

import pytest

from stages.training.checkpoint.format import Probe
from stages.training.errors import TrainingError
from stages.training.loop.probe import TOLERANCE, check_probe

PROBE = Probe(batch=7, loss=2.0, grad_norm=0.5)


@pytest.mark.parametrize("precision", sorted(TOLERANCE))
def test_differences_within_the_number_format_s_tolerance_are_allowed(precision: str) -> None:
    factor = 1 + 0.9 * TOLERANCE[precision]
    for way in (factor, 1 / factor):
        check_probe(PROBE, 7, 2.0 * way, 0.5 * way, precision, "here")


@pytest.mark.parametrize("precision", sorted(TOLERANCE))
@pytest.mark.parametrize(("loss", "grad_norm", "named"), [(1, 0, "loss of 2"), (0, 1, "norm of the gradient of 0")])
def test_a_larger_difference_is_silent_corruption(precision: str, loss: int, grad_norm: int, named: str) -> None:
    factor = 1 + 2 * TOLERANCE[precision]
    with pytest.raises(TrainingError, match=rf"batch 7.* has a {named}.*silent corruption.*step 7"):
        check_probe(PROBE, 7, 2.0 * factor**loss, 0.5 * factor**grad_norm, precision, "here")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_a_difference(value: float) -> None:
    with pytest.raises(TrainingError):
        check_probe(PROBE, 7, value, 0.5, "fp32", "here")


def test_another_batch_is_not_compared() -> None:
    check_probe(PROBE, 8, 9.0, 9.0, "fp32", "here")


def test_losses_near_zero_are_compared_in_absolute_terms() -> None:
    check_probe(Probe(batch=1, loss=0.0, grad_norm=0.0), 1, 5e-7, 5e-7, "fp32", "here")
