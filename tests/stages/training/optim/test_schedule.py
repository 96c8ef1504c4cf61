"""Learning rates: warm-up, decay, and a peak that falls with a model's size."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.sizes import sized
from stages.training.config import TrainingConfig
from stages.training.optim.schedule import factor, peak_learning_rate


@given(st.sampled_from(["wsd", "cosine"]), st.integers(1, 300), st.integers(0, 300), st.floats(0, 1), st.floats(0, 1))
def test_schedules_warm_up_and_decay(schedule, steps, warmup, decay, last):
    config = TrainingConfig(
        schedule=schedule, steps=steps, warmup=min(warmup, steps), decay=decay, final_learning_rate=last
    )
    values = [factor(config, step) for step in range(steps)]
    assert all(max(0, min(last, values[0])) <= value <= 1 and value > 0 for value in values)
    rising = values[: config.warmup]
    assert rising == sorted(set(rising))
    after = values[config.warmup :]
    assert after == sorted(after, reverse=True)
    if after:
        assert after[0] == 1 or schedule == "wsd"
    flat = steps - round(decay * steps)
    assert schedule == "cosine" or all(value == 1 for value in values[config.warmup : flat])


@given(st.integers(2, 10_000), st.floats(0, 1))
def test_a_cosine_is_half_way_down_in_the_middle_and_ends_at_its_end(half, last):
    config = TrainingConfig(schedule="cosine", steps=2 * half + 10, warmup=10, final_learning_rate=last)
    assert factor(config, 10) == 1
    assert factor(config, 10 + half) == pytest.approx((1 + last) / 2)
    assert last < factor(config, config.steps - 1) + 1e-12 <= last + 2.5 * (1 - last) / half**2 + 1e-9
    assert factor(config, config.steps) == pytest.approx(last)


def test_peak_learning_rate_falls_with_size():
    shapes = [sized(name, 32_000, 2048) for name in ("nano", "125m", "7b")]
    peaks = [peak_learning_rate(TrainingConfig(), shape) for shape in shapes]
    assert peaks == sorted(peaks, reverse=True)
    assert peak_learning_rate(TrainingConfig(learning_rate=0.1), shapes[0]) == 0.1
