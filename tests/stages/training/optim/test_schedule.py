"""Learning rates: warm-up, decay, and a peak that falls with a model's size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sizes import config_for_size
from stages.training.config import ScheduleConfig
from stages.training.optim.schedule import LearningRateSchedule, ladder_peak_lr


@given(st.sampled_from(["wsd", "cosine"]), st.integers(1, 300), st.integers(0, 300), st.floats(0, 1), st.floats(0, 1))
def test_schedules_warm_up_and_decay(schedule, steps, warmup, decay, last):
    warmup = min(warmup, steps)
    config = ScheduleConfig(kind=schedule, warmup_steps=warmup, decay_ratio=decay, min_lr_ratio=last)
    rates = LearningRateSchedule(config, 0.5, steps)
    values = [rates.lr_multiplier(step) for step in range(steps)]
    assert [rates.lr(step) for step in range(steps)] == [0.5 * value for value in values]
    assert all(max(0, min(last, values[0])) <= value <= 1 and value > 0 for value in values)
    rising = values[:warmup]
    assert rising == sorted(set(rising))
    after = values[warmup:]
    assert after == sorted(after, reverse=True)
    if after:
        assert after[0] == 1 or schedule == "wsd"
    flat = steps - round(decay * steps)
    assert schedule == "cosine" or all(value == 1 for value in values[warmup:flat])


@given(st.integers(2, 10_000), st.floats(0, 1))
def test_a_cosine_is_half_way_down_in_the_middle_and_ends_at_its_end(half, last):
    rates = LearningRateSchedule(ScheduleConfig(kind="cosine", warmup_steps=10, min_lr_ratio=last), 1.0, 2 * half + 10)
    assert rates.lr(10) == 1
    assert rates.lr(10 + half) == pytest.approx((1 + last) / 2)
    assert last < rates.lr(rates.steps - 1) + 1e-12 <= last + 2.5 * (1 - last) / half**2 + 1e-9
    assert rates.lr(rates.steps) == pytest.approx(last)


def test_peak_learning_rate_falls_with_size():
    shapes = [config_for_size(name, 32_000, 2048) for name in ("nano", "125m", "7b")]
    peaks = [ladder_peak_lr(shape) for shape in shapes]
    assert peaks == sorted(peaks, reverse=True)
