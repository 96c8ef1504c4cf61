"""How much of each source a run has been trained on: arithmetic on its order, nothing is counted."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stages.tokens.order import Order


def drawn_rows(order: Order, position: int) -> NDArray[np.int64]:
    """Rows of each source in the samples before a position: int64 [sources].

    Args:
        position: a multiple of the order's lanes.
    """
    slot = position // order.lanes
    rows = np.zeros(len(order.shards.sources), dtype=np.int64)
    for stretch in order.stretches:
        if stretch.start >= slot:
            break
        slots = slot - stretch.start
        whole = slots >= stretch.slots
        drawn = stretch.drawn if whole else stretch.mixture.drawn(order.lanes, slots)
        rows += drawn.sum(axis=1) * stretch.k
    return rows


def tokens_by_source(
    order: Order, sequence_length: int, batch: int, end: int, left_out: Iterable[tuple[int, int]] = ()
) -> dict[str, int]:
    """Tokens of each source in batches 0 to `end` - 1.

    Args:
        batch: samples a batch.
        left_out: ranges [first, end) of batches that do not count, without overlap.
    """
    rows = drawn_rows(order, end * batch)
    for first, last in left_out:
        if first < end:
            rows -= drawn_rows(order, min(last, end) * batch) - drawn_rows(order, first * batch)
    return {name: int(n) * sequence_length for name, n in zip(order.shards.sources, rows, strict=True)}
