"""When checkpoints are due, on a clock that the test moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.training.checkpoint.interval import Timetable, best_interval, mean_seconds_between_failures
from stages.training.config import CheckpointConfig
from tests.support import examples


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def _timetable(clock: Clock, devices: int = 1024, estimate: float = 2.0, **config: Any) -> Timetable:
    return Timetable(CheckpointConfig(**config), devices, estimate, clock=clock)


@given(cost=st.floats(1e-3, 1e3), between=st.floats(1e2, 1e8), other=st.floats(0.1, 10))
@examples(50)
def test_no_other_interval_costs_less(cost: float, between: float, other: float) -> None:
    def lost(interval: float) -> float:
        """Share of the time that goes into saving, and into what a failure undoes: half an interval each time."""
        return cost / interval + interval / 2 / between

    best = best_interval(cost, between)
    assert lost(best) <= lost(best * other) * (1 + 1e-9)


def test_failures_come_as_often_as_there_are_devices() -> None:
    assert mean_seconds_between_failures(1024, None) == pytest.approx(7.9 * 3600)
    assert mean_seconds_between_failures(16384, None) == pytest.approx(7.9 * 3600 / 16)
    assert mean_seconds_between_failures(16384, 2.0) == 7200


def test_one_on_disk_is_due_when_the_derived_interval_is_over() -> None:
    clock = Clock()
    table = _timetable(clock, mean_hours_between_failures=1.0)
    assert table.durable_seconds == pytest.approx((2 * 2.0 * 3600) ** 0.5)  # 120 s
    clock.now += 119
    assert not table.durable_is_due(7)
    clock.now += 2
    assert table.durable_is_due(7)
    table.saved("durable")
    assert not table.durable_is_due(8)
    table.measured("durable", 8.0)
    assert table.durable_seconds == pytest.approx(240)
    clock.now += 239
    assert not table.durable_is_due(9)
    clock.now += 2
    assert table.durable_is_due(9)


def test_one_in_memory_takes_half_a_percent_of_the_time() -> None:
    clock = Clock()
    table = _timetable(clock, estimate=0.1)
    assert table.memory_seconds == pytest.approx(20)
    clock.now += 21
    assert table.memory_is_due(1) and not table.durable_is_due(1)
    table.saved("memory")
    assert not table.memory_is_due(2)
    clock.now += 21
    table.saved("durable")
    assert not table.memory_is_due(3), "one on disk is one in memory"
    table.measured("memory", 0.2)
    clock.now += 39
    assert not table.memory_is_due(4)
    clock.now += 2
    assert table.memory_is_due(4)


def test_what_costs_nothing_is_not_done_at_every_step_and_what_hardly_fails_every_half_hour() -> None:
    table = _timetable(Clock(), devices=1, estimate=0.0)
    assert (table.durable_seconds, table.memory_seconds) == (60.0, 10.0)
    assert _timetable(Clock(), devices=1, estimate=100.0).durable_seconds == 1800.0


def test_the_training_s_start_begins_the_first_interval() -> None:
    clock = Clock()
    table = _timetable(clock)
    clock.now += 10_000
    assert table.durable_is_due(1)
    table.start()
    assert not table.durable_is_due(1) and not table.memory_is_due(1)


def test_a_number_of_steps_is_followed_whatever_the_time() -> None:
    clock = Clock()
    table = _timetable(clock, every_steps=4, memory_every_steps=3)
    clock.now += 10_000
    assert [step for step in range(1, 13) if table.durable_is_due(step)] == [4, 8, 12]
    assert [step for step in range(1, 13) if table.memory_is_due(step)] == [3, 6, 9, 12]
    none = _timetable(clock, memory_every_steps=0)
    clock.now += 10_000
    assert not any(none.memory_is_due(step) for step in range(1, 5))


def test_one_slow_save_does_not_decide_the_interval() -> None:
    table = _timetable(Clock(), estimate=0.1)
    for seconds in (0.1, 0.1, 5.0):
        table.measured("memory", seconds)
    assert table.memory_seconds == pytest.approx(20)
    for _ in range(5):
        table.measured("memory", 0.2)
    assert table.memory_seconds == pytest.approx(40)
