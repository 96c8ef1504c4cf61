"""The keyed permutation is a bijection with an exact inverse."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tokens.feistel import invert, keyed_hash, permute

keys = st.integers(0, 2**64 - 1)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 7, 8, 9, 31, 64, 100, 1000, 1024, 1025, 5000])
@pytest.mark.parametrize("key", [0, 1, 2**64 - 1])
def test_is_a_bijection(n: int, key: int) -> None:
    index = np.arange(n)
    found = permute(index, n, key)
    assert sorted(found.tolist()) == index.tolist()
    assert (invert(found, n, key) == index).all()


@given(st.integers(1, 2**48), keys, st.data())
def test_has_an_inverse_at_any_size(n: int, key: int, data: st.DataObject) -> None:
    index = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    image = permute(index, n, key)
    assert ((image >= 0) & (image < n)).all()
    assert (invert(image, n, key) == index).all()


@given(st.lists(st.tuples(st.integers(1, 2**40), keys, st.floats(0, 0.999)), min_size=1, max_size=20))
def test_each_element_may_have_its_own_size_and_key(cases: list[tuple[int, int, float]]) -> None:
    n = np.array([case[0] for case in cases])
    key = np.array([case[1] for case in cases], dtype=np.uint64)
    index = np.array([int(case[0] * case[2]) for case in cases])
    together = permute(index, n, key)
    alone = [int(permute(i, m, k)) for i, m, k in zip(index.tolist(), n.tolist(), key, strict=True)]
    assert together.tolist() == alone


def test_neighbours_are_separated_and_keys_differ() -> None:
    n = 100_000
    found = permute(np.arange(n), n, 1)
    # of a random permutation 2 neighbours in 100,000 stay neighbours, and 1 element stays where another key puts it
    assert (np.abs(np.diff(found)) == 1).sum() < 20
    assert (found == permute(np.arange(n), n, 2)).sum() < 20
    # halves land evenly: 25,000 expected in each quarter, standard deviation 112
    low = found[: n // 2] < n // 2
    assert abs(int(low.sum()) - n // 4) < 700


def test_refuses_values_outside_the_range() -> None:
    for index in (-1, 10):
        with pytest.raises(ValueError, match="outside"):
            permute(index, 10, 0)
    assert permute(np.zeros(0, np.int64), 10, 0).size == 0


def test_numbers_are_the_same_forever() -> None:
    assert permute(np.arange(10), 10, 42).tolist() == GOLDEN
    assert int(keyed_hash(1, 2, 3)[0]) == GOLDEN_HASH


GOLDEN = [5, 2, 6, 1, 3, 0, 9, 4, 7, 8]
GOLDEN_HASH = 5760440037816422939
