"""The single rules: policy, split."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.config import PolicyConfig
from stages.corpus.policy import normalize_license, policy_removal
from stages.corpus.split import group_of, is_held_out


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("CC BY 4.0", "CC-BY-4.0"),
        ("cc-by-nc-sa-4.0", "CC-BY-NC-SA-4.0"),
        ("CC0", "CC0-1.0"),
        ("MIT", "MIT"),
        ("  LicenseRef-x ", "LicenseRef-x"),
        (None, "unknown"),
        ("", "unknown"),
        ("N/A", "unknown"),
    ],
)
def test_licenses_are_brought_to_spdx(written: object, name: str) -> None:
    assert normalize_license(written) == name


def test_policy_denies_by_source_license_and_address() -> None:
    config = PolicyConfig(
        allowed_licenses=["cc-by-4.0", "MIT"],
        denied_licenses=["mit"],
        denied_sources=["forum"],
        denied_urls=["*://bad.example/*"],
    )
    assert policy_removal(config, "a", "CC-BY-4.0", "http://good.example/x") is None
    cases = {
        "policy_source": ("forum", "CC-BY-4.0", ""),
        "policy_license": ("a", "MIT", ""),
        "policy_url": ("a", "CC-BY-4.0", "https://BAD.example/x"),
    }
    for rule, (source, license, url) in cases.items():
        removal = policy_removal(config, source, license, url)
        assert removal and removal.rule == rule
    assert policy_removal(config, "a", "unknown", "") is not None
    assert policy_removal(PolicyConfig(), "a", "unknown", "") is None


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
