"""The single rules: policy, boilerplate, filters, split."""

from __future__ import annotations

import socket

import pytest
from corpus_world import sentence
from hypothesis import given, settings
from hypothesis import strategies as st

from stages.corpus.config import (
    FilterConfig,
    GopherRepetitionConfig,
    PolicyConfig,
)
from stages.corpus.filters import Filters
from stages.corpus.policy import normalize_license, policy_removal
from stages.corpus.repetition import may_repeat
from stages.corpus.split import group_of, is_held_out
from stages.corpus.tokenizer import FastTokenizer


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


@pytest.fixture(scope="module")
def filters() -> Filters:
    return Filters(FilterConfig())


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (sentence(5), None),
        ("", "empty"),
        ("Too short a text to be of any use.", "quality_short"),
        (
            "El paciente presenta fiebre y dolor de cabeza desde hace tres días, y se le ha recetado un antibiótico "
            "que debe tomar con las comidas durante una semana entera.",
            "language",
        ),
        ("The same line is repeated over and over again for nothing.\n" * 20, "repetition_lines"),
        (" ".join(["The 1234 patients of 3456 have 56 % 7890 ( 9012 ) [ 1122 ] 2233 % 44556"] * 6), "quality_letters"),
        (f"{sentence(5)} " + "buy the cheap pills here today and save " * 25, "repetition_top_ngram"),
        (f"Lorem ipsum is the text of this page. {sentence(5)}", "c4_lorem_ipsum"),
    ],
)
def test_filters_say_why_with_a_value_beyond_its_threshold(filters: Filters, text: str, rule: str | None) -> None:
    language, score, removal = filters.judge(text)
    assert (removal.rule if removal else None) == rule
    if rule is None:
        assert language == "en" and score > 0.3
    if removal and not removal.rule.startswith("c4"):
        below = removal.rule in ("empty", "quality_short", "language", "quality_letters")
        assert (removal.value < removal.threshold) == below and removal.value != removal.threshold


def test_language_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert Filters(FilterConfig()).judge(sentence(1))[0] == "en"


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from(["a", "to", "fever", "x.y", ",", "dose"]), min_size=50, max_size=160), st.integers(0, 40)
)
def test_the_shortcut_never_hides_a_repetition(found: list[str], tail: int) -> None:
    from datatrove.data import Document

    from stages.corpus.filters import _repetition_filter

    text = " ".join([*found, *(f"w{i}" for i in range(tail * 10))])
    config, tokens = GopherRepetitionConfig(), FastTokenizer()
    verdict = _repetition_filter(config, tokens).filter(Document(text=text, id=""))
    if not may_repeat(text, tokens.word_tokenize(text), config):
        assert verdict is True


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
