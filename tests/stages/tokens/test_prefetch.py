"""The thread returns what is requested, in any order; its errors reach the consumer, and it always ends."""

from __future__ import annotations

import gc
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tokens.prefetch import Prefetch


def running() -> int:
    return sum(thread.name == "prefetch" for thread in threading.enumerate())


@given(st.integers(1, 20), st.integers(1, 4), st.data())
def test_every_step_in_any_order(steps: int, depth: int, data: st.DataObject) -> None:
    ahead = Prefetch(lambda step: step * step, steps, depth)
    for step in data.draw(st.lists(st.integers(0, steps - 1), max_size=30)):
        assert ahead[step] == step * step
    assert [ahead[step] for step in range(steps)] == [step * step for step in range(steps)]
    ahead.close()
    assert not running()


def test_it_works_ahead_up_to_its_depth() -> None:
    computed, third = [], threading.Event()

    def make(step: int) -> int:
        computed.append(step)
        if len(computed) == 3:
            third.set()
        return step

    ahead = Prefetch(make, 100, depth=2)
    assert ahead[5] == 5
    assert third.wait(30)  # two more were computed ahead of any request
    ahead.close()
    assert computed in ([5, 6, 7], [5, 6, 7, 8])


def test_an_error_is_raised_for_its_step_after_the_earlier_steps() -> None:
    def make(step: int) -> int:
        if step == 2:
            raise ValueError("step 2 is broken")
        return step

    ahead = Prefetch(make, 5, depth=4)
    assert [ahead[0], ahead[1]] == [0, 1]
    for _ in range(2):  # each time it is requested
        with pytest.raises(ValueError, match="step 2 is broken"):
            ahead[2]
        assert not running()
    assert ahead[3] == 3
    ahead.close()
    assert not running()


def test_the_thread_always_ends() -> None:
    ahead = Prefetch(lambda step: step, 1000)
    assert ahead[0] == 0 and running() == 1
    del ahead
    gc.collect()
    assert not running()
    ahead = Prefetch(lambda step: step, 1000)
    assert ahead[0] == 0
    ahead.close()
    assert not running()
    ahead.close()  # closing twice is allowed
    assert ahead[999] == 999  # and it can be used again
    ahead.close()
    for step in (-1, 1000):
        with pytest.raises(IndexError):
            ahead[step]
    assert not running()
