"""The numpy code that the loader is compared with is correct: rows in the requested order, inputs and targets."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from benchmarks.tokens_numpy import IGNORE_INDEX, MEMMAP, plain_batch

EOS = 0


@pytest.mark.parametrize("read", MEMMAP.values(), ids=MEMMAP)
def test_rows_come_in_the_requested_order(read: Callable[..., Any]) -> None:
    rows = np.arange(12 * 4, dtype=np.uint16).reshape(12, 4)
    asked = np.array([11, 0, 7, 7, 3, 4])
    found = read([rows[:5], rows[5:10], rows[10:]], asked // 5, asked % 5)
    assert found.dtype == np.int64 and (found == rows[asked]).all()


@given(arrays(np.uint16, st.tuples(st.integers(1, 4), st.integers(2, 9)), elements=st.integers(0, 2)))
def test_a_plain_batch_equals_a_loop_over_tokens(rows: NDArray[Any]) -> None:
    targets = []
    for row in rows.tolist():
        targets += [IGNORE_INDEX if token == EOS else following for token, following in pairwise(row)]
    found = plain_batch(rows, np.arange(len(rows)), EOS)
    assert (found.inputs == rows[:, :-1]).all() and found.targets.ravel().tolist() == targets
