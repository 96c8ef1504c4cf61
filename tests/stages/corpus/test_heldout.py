"""The split: held-out documents are chosen by their group."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.heldout import group_of, is_held_out


@given(st.text(max_size=20), st.integers(0, 5))
def test_held_out_is_a_function_of_group_and_grows_with_the_fraction(group: str, seed: int) -> None:
    chosen = [is_held_out(group, fraction, seed) for fraction in (0.0, 0.01, 0.3, 0.7, 0.9999)]
    assert chosen == sorted(chosen) and not chosen[0]


def test_held_out_is_about_the_fraction() -> None:
    share = sum(is_held_out(f"g{i}", 0.1, 3) for i in range(20_000)) / 20_000
    assert 0.09 < share < 0.11


def test_groups_fold_case_and_fall_back() -> None:
    assert group_of(" Asthma  Attack ", "t", "u", "d") == "asthma attack" == group_of("", "ASTHMA attack", "u", "d")
    assert group_of("", "", "http://X", "d") == "http://x"
    assert group_of("", "", "", "d") == "document d"
