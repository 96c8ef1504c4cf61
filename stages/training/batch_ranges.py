"""Ranges of batches, [first, end) by number: what a run skips, has skipped or applied. Needs no PyTorch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Range = tuple[int, int]
"""Batches [first, end)."""


def within(ranges: Iterable[Sequence[int]], number: int) -> bool:
    """Whether a batch is in one of the ranges."""
    return any(first <= number < end for first, end in ranges)


def first_outside(ranges: Sequence[Sequence[int]], first: int, end: int) -> int | None:
    """The first of batches `first` to `end` - 1 that is in none of the ranges; None if there is none."""
    return next((number for number in range(first, end) if not within(ranges, number)), None)
