"""How many tokens of each source a run has been trained on: computed from its order, nothing is counted at run time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from stages.tokens.order import Order


def drawn_rows(order: Order, position: int) -> NDArray[np.int64]:
    """Rows of each source in the samples before a position: int64 [sources].

    Args:
        position: a multiple of the order's data streams.
    """
    slot = position // order.streams
    rows = np.zeros(len(order.shards.sources), dtype=np.int64)
    for segment in order.segments:
        if segment.start >= slot:
            break
        slots = slot - segment.start
        whole = slots >= segment.slots
        drawn = segment.drawn if whole else segment.mixture.count_draws(order.streams, slots)
        rows += drawn.sum(axis=1) * segment.rows_per_sample
    return rows


def tokens_by_source(
    order: Order, sequence_length: int, global_batch_size: int, end: int, skipped: Iterable[tuple[int, int]] = ()
) -> dict[str, int]:
    """Tokens of each source in batches 0 to `end` - 1.

    Args:
        sequence_length: tokens in a row of the token stream.
        global_batch_size: samples in a batch.
        skipped: ranges [first, end) of batches that do not count, without overlap.
    """
    rows = drawn_rows(order, end * global_batch_size)
    for first, last in skipped:
        if first < end:
            rows -= drawn_rows(order, min(last, end) * global_batch_size)
            rows += drawn_rows(order, first * global_batch_size)
    return {name: int(n) * sequence_length for name, n in zip(order.shards.sources, rows, strict=True)}
