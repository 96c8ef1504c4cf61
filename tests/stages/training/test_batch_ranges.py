"""Ranges of batches against sets of their numbers."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.training.batch_ranges import first_outside, within

_ranges = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=4)


@given(_ranges, st.integers(0, 20), st.integers(0, 20))
def test_ranges_are_those_of_sets(ranges: list[tuple[int, int]], first: int, end: int) -> None:
    inside = {number for begin, stop in ranges for number in range(begin, stop)}
    assert [within(ranges, number) for number in range(22)] == [number in inside for number in range(22)]
    assert first_outside(ranges, first, end) == min(set(range(first, end)) - inside, default=None)
