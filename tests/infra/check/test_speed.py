"""The measurement that scales the budget."""

from __future__ import annotations

from infra.check import speed


def test_it_is_the_median_of_its_repeats(monkeypatch) -> None:
    seconds = iter([0.9, 0.1, 0.3, 0.2, 0.8])
    monkeypatch.setattr(speed, "_seconds", lambda: next(seconds))
    assert speed.loop_seconds() == 0.3


def test_the_loop_takes_time() -> None:
    assert speed.loop_seconds() > 0
