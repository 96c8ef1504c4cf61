"""The order of a run with replay: the share of the source that is replayed is exact, whatever the others do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store import ConfigError
from stages.tokens.mixture import BLOCK
from stages.tokens.table import ShardTable
from stages.training.preflight.plan import run_order
from tests.support import examples, training_config

ROWS = {"big": 40_000, "small": 3_000, "tiny": 40, "news": 9_000}


def _table(rows: dict[str, int]) -> ShardTable:
    return ShardTable(tuple(rows), tuple(np.array([count]) for count in rows.values()))


def _counts(rows: dict[str, int], **settings: Any) -> dict[str, int]:
    """Samples of each source in the first block of a run."""
    config = training_config(steps=BLOCK, data__global_batch_size=1, schedule__warmup_steps=0, **settings)
    order = run_order(_table(rows), "d", config)
    names, counts = np.unique(order.at(np.arange(BLOCK)).source, return_counts=True)
    return {[*rows][name]: int(count) for name, count in zip(names, counts, strict=True)}


@examples(30)
@given(
    st.floats(0.01, 0.99),
    st.dictionaries(st.sampled_from(["big", "small", "tiny"]), st.integers(1, 50_000), min_size=1),
)
def test_replay_has_its_share_and_every_other_source_is_drawn(share: float, others: dict[str, int]) -> None:
    found = _counts(others | {"news": 9_000}, data__replay={"source": "news", "share": share})
    assert found.keys() == {*others, "news"}
    assert abs(found["news"] - share * BLOCK) <= len(others) + 1
    total = sum(others.values())
    for name, rows in others.items():
        assert abs(found[name] - (1 - share) * BLOCK * rows / total) <= len(others) + 1


def test_without_a_share_it_is_three_tenths_and_others_keep_their_weights() -> None:
    found = _counts(ROWS, data__replay={"source": "news"}, data__weights={"big": 1.0, "small": 3.0})
    assert found == {"big": 179, "small": 538, "news": 307}


def test_a_source_that_is_not_there_and_a_source_alone_are_refused() -> None:
    with pytest.raises(ConfigError, match="'web' is no source of these tokens; there are big, small, tiny, news"):
        _counts(ROWS, data__replay={"source": "web"})
    with pytest.raises(ConfigError, match="there is no source besides 'news'"):
        _counts({"news": 9_000}, data__replay={"source": "news"})
