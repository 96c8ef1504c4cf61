"""Tokens by source, by arithmetic, against a count of every sample."""

from __future__ import annotations

from functools import cache

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.table import ShardTable
from stages.tokens.tokens_by_source import tokens_by_source
from tests.support import examples

BATCH, LENGTH = 6, 10
TABLE = ShardTable(("small", "large"), tuple(np.array(rows, dtype=np.int64) for rows in ([40, 31], [500, 500, 77])))
PHASES = [
    Phase(BATCH * 30),
    Phase(BATCH * 200, rows_per_sample=2, weights={"small": 1, "large": 3}, repeat={"small": 2.0}),
    Phase(BATCH * 400, weights={"large": 1.0}),
]


@cache
def _order(streams: int) -> Order:
    return Order(TABLE, "digest", 3, PHASES, shuffle_window_shards=2, streams=streams)


@cache
def _tokens(streams: int) -> NDArray[np.int64]:
    """Of each batch and source, counted: int64 [batches, sources]."""
    found = []
    for number in range(630):
        samples = _order(streams).at(np.arange(number * BATCH, (number + 1) * BATCH))
        found.append(np.bincount(samples.source, minlength=len(TABLE.sources)) * samples.rows_per_sample * LENGTH)
    return np.stack(found)


@examples(30)
@given(
    st.sampled_from([1, 2, 3]),
    st.integers(0, 630),
    st.lists(st.integers(0, 629), min_size=0, max_size=6, unique=True),
)
def test_tokens_by_source_are_those_of_every_sample(streams: int, end: int, bounds: list[int]) -> None:
    tokens, ordered = _tokens(streams), sorted(bounds)
    left_out = list(zip(ordered[::2], ordered[1::2], strict=False))
    counted = np.arange(len(tokens)) < end
    for first, last in left_out:
        counted[first:last] = False
    expected = dict(zip(TABLE.sources, tokens[counted].sum(axis=0).tolist(), strict=True))
    assert tokens_by_source(_order(streams), LENGTH, BATCH, end, left_out) == expected
