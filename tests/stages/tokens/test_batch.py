"""Ranks share a batch without gap or overlap; targets follow the EOS."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models import IGNORE_INDEX
from stages.tokens.batch import counts_for_bits_per_byte, model_inputs, rank_slots

EOS = 0


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 50))
def test_ranks_partition_a_batch(per_stream: int, streams: int, ranks: int) -> None:
    batch = per_stream * streams
    parts = [rank_slots(batch, rank, ranks, streams) for rank in range(ranks)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(batch))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if streams % ranks == 0:  # then a rank owns whole streams
        owned = [set((part % streams).tolist()) for part in parts]
        assert sum(len(streams_of) for streams_of in owned) == streams


def test_the_joined_ranks_are_one_sequence_for_every_number_of_ranks() -> None:
    whole = rank_slots(24, 0, 1, 4).tolist()
    assert whole[:6] == [0, 4, 8, 12, 16, 20]
    for ranks in (2, 3, 5, 7, 24):
        assert np.concatenate([rank_slots(24, r, ranks, 4) for r in range(ranks)]).tolist() == whole


@pytest.mark.parametrize(
    ("batch", "rank", "ranks", "streams"), [(6, 0, 1, 4), (0, 0, 1, 1), (4, 2, 2, 1), (4, -1, 2, 1)]
)
def test_impossible_shares_are_refused(batch: int, rank: int, ranks: int, streams: int) -> None:
    with pytest.raises(ValueError, match=r"positive multiple of|rank -?\d is not in"):
        rank_slots(batch, rank, ranks, streams)


def test_a_sample_by_hand() -> None:
    # the tail of one document, a whole one, one of a single token, the begin of another, filler
    found = model_inputs(np.array([[5, 6, EOS, 7, 8, EOS, 9, EOS, 4, EOS, EOS, EOS]], dtype=np.uint16), EOS)
    assert found.inputs.tolist() == [[5, 6, 0, 7, 8, 0, 9, 0, 4, 0, 0]]
    assert found.targets.tolist() == [
        [6, 0, IGNORE_INDEX, 8, 0, IGNORE_INDEX, 0, IGNORE_INDEX, 0, IGNORE_INDEX, IGNORE_INDEX]
    ]
    assert found.targets[counts_for_bits_per_byte(found.targets, EOS)].tolist() == [6, 8]


@given(st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=4))
def test_every_rule_at_every_token(rows: list[list[int]]) -> None:
    found = model_inputs(np.array(rows), EOS)
    for line, row in enumerate(rows):
        for place in range(11):
            assert found.inputs[line, place] == row[place]
            assert found.targets[line, place] == (IGNORE_INDEX if row[place] == EOS else row[place + 1])


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_arrays_are_contiguous_copies_in_int64(dtype: type) -> None:
    rows = np.array([[3, EOS, 60_000, 7], [1, 2, 3, EOS]], dtype=dtype)
    found = model_inputs(rows, EOS)
    for array in found:
        assert array.dtype == np.int64 and array.flags.c_contiguous and array.shape == (2, 3)
        assert not np.shares_memory(array, rows)


def test_a_rank_without_samples_has_empty_inputs() -> None:
    found = model_inputs(np.zeros((0, 12), dtype=np.uint16), EOS)
    assert found.inputs.shape == found.targets.shape == (0, 11)
