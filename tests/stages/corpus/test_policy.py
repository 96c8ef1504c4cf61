"""The policy: licences by one name each, and what it denies."""

from __future__ import annotations

import pytest

from stages.corpus.config import PolicyConfig
from stages.corpus.policy import normalize_license, policy_removal


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
