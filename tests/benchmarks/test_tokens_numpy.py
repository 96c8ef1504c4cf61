"""What the loader is measured against makes what it should: rows in the order asked for, and all outputs of a batch."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from benchmarks.tokens_numpy import IGNORE, MEMMAP, plain_batch

EOS = 0


@pytest.mark.parametrize("read", MEMMAP.values(), ids=MEMMAP)
def test_rows_come_in_the_order_asked_for(read: Callable[..., Any]) -> None:
    rows = np.arange(12 * 4, dtype=np.uint16).reshape(12, 4)
    asked = np.array([11, 0, 7, 7, 3, 4])
    found = read([rows[:5], rows[5:10], rows[10:]], asked // 5, asked % 5)
    assert found.dtype == np.int64 and (found == rows[asked]).all()


@given(arrays(np.uint16, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=st.integers(0, 2)))
def test_a_plain_batch_is_what_a_loop_over_tokens_says(rows: NDArray[Any]) -> None:
    labels, positions, begins = [], [], []
    for row in rows.tolist():
        place = 0
        for token, following in pairwise(row):
            if place == 0:
                begins.append(len(positions))
            positions.append(place)
            labels.append(IGNORE if token == EOS else following)
            place = 0 if token == EOS else place + 1
    found = plain_batch(rows, np.arange(len(rows)), EOS)
    assert (found.inputs == rows[:, :-1]).all()
    assert found.labels.ravel().tolist() == labels and found.positions.ravel().tolist() == positions
    assert found.cu_seqlens.tolist() == [*begins, len(positions)]
