"""Ranks share a batch without gap or overlap; targets, positions and documents follow the EOS."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.tokens.batch import IGNORE, counted, counted_bytes, model_inputs, rank_positions, rank_slots

EOS = 0


@given(st.integers(1, 40), st.integers(1, 6), st.integers(1, 50))
def test_ranks_partition_a_batch(a_lane: int, lanes: int, ranks: int) -> None:
    batch = a_lane * lanes
    parts = [rank_slots(batch, rank, ranks, lanes) for rank in range(ranks)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(batch))
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1
    if lanes % ranks == 0:  # then a rank owns whole lanes
        owned = [set((part % lanes).tolist()) for part in parts]
        assert sum(len(lanes_of) for lanes_of in owned) == lanes


def test_the_joined_ranks_are_one_sequence_for_every_number_of_ranks() -> None:
    whole = rank_slots(24, 0, 1, 4).tolist()
    assert whole[:6] == [0, 4, 8, 12, 16, 20]
    for ranks in (2, 3, 5, 7, 24):
        assert np.concatenate([rank_slots(24, r, ranks, 4) for r in range(ranks)]).tolist() == whole
    assert rank_positions(3, 24, 1, 2, 1).tolist() == list(range(84, 96))


@pytest.mark.parametrize(("batch", "rank", "ranks", "lanes"), [(6, 0, 1, 4), (0, 0, 1, 1), (4, 2, 2, 1), (4, -1, 2, 1)])
def test_impossible_shares_are_refused(batch: int, rank: int, ranks: int, lanes: int) -> None:
    with pytest.raises(ValueError, match="batch"):
        rank_slots(batch, rank, ranks, lanes)


def test_a_sample_by_hand() -> None:
    # the tail of one document, a whole one, one of a single token, the begin of another, filler
    made = model_inputs(np.array([[5, 6, EOS, 7, 8, EOS, 9, EOS, 4, EOS, EOS, EOS]], dtype=np.uint16), EOS)
    assert made.inputs.tolist() == [[5, 6, 0, 7, 8, 0, 9, 0, 4, 0, 0]]
    assert made.targets.tolist() == [[6, 0, IGNORE, 8, 0, IGNORE, 0, IGNORE, 0, IGNORE, IGNORE]]
    assert made.positions.tolist() == [[0, 1, 2, 0, 1, 2, 0, 1, 0, 1, 0]]
    assert made.documents.tolist() == [[0, 0, 0, 1, 1, 1, 2, 2, 3, 3, 4]]
    assert made.cu_seqlens.tolist() == [0, 3, 6, 8, 10, 11] and made.cu_seqlens.dtype == np.int32
    assert made.max_seqlen == 3
    assert made.valid == 6
    sizes = np.array([0, 1, 1, 1, 10, 20, 30, 40, 50, 60], dtype=np.int32)
    assert counted(made.targets, EOS).sum() == 2
    assert counted_bytes(made.targets, EOS, sizes) == 30 + 50


@given(st.lists(st.lists(st.integers(0, 3), min_size=12, max_size=12), min_size=1, max_size=4))
def test_every_rule_at_every_token(rows: list[list[int]]) -> None:
    made = model_inputs(np.array(rows), EOS)
    begins = []
    for line, row in enumerate(rows):
        position, document = 0, 0
        for place in range(11):
            if position == 0:
                begins.append(line * 11 + place)
            assert made.inputs[line, place] == row[place]
            assert made.positions[line, place] == position
            assert made.documents[line, place] == document
            assert made.targets[line, place] == (IGNORE if row[place] == EOS else row[place + 1])
            position += 1
            if row[place] == EOS:
                position, document = 0, document + 1
    assert made.cu_seqlens.tolist() == [*begins, 11 * len(rows)]
    assert made.max_seqlen == max(np.diff([*begins, 11 * len(rows)]))


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.int64])
def test_arrays_are_flat_and_of_the_types_that_kernels_take(dtype: type) -> None:
    rows = np.array([[3, EOS, 60_000, 7], [1, 2, 3, EOS]], dtype=dtype)
    made = model_inputs(rows, EOS)
    for array in (made.inputs, made.targets, made.positions):
        assert array.dtype == np.int64 and array.flags.c_contiguous and array.shape == (2, 3)
    assert made.cu_seqlens.tolist() == [0, 2, 3, 6]
    assert not np.shares_memory(made.inputs, rows)


def test_a_rank_without_samples_has_empty_inputs() -> None:
    made = model_inputs(np.zeros((0, 12), dtype=np.uint16), EOS)
    assert made.inputs.shape == made.targets.shape == made.positions.shape == made.documents.shape == (0, 11)
    assert (made.cu_seqlens.tolist(), made.max_seqlen, made.valid) == ([0], 0, 0)
