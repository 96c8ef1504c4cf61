"""Names made from names in any script: recognizable where ASCII allows it, distinct where it does not."""

from __future__ import annotations

import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.reading.names import make_name
from tests.support import examples


def name(original: str, longest: int = 40) -> str:
    return make_name(original, "data", "._-", "-", longest)


@pytest.mark.parametrize(
    ("original", "made"),
    [
        ("Données médicales", "Donnees-medicales"),
        ("Łódź Straße", "Lodz-Strasse"),
        ("Ærø", "AEro"),
        ("Tiếng Việt", "Tieng-Viet"),
        ("my.docs_2024", "my.docs_2024"),
        ("a::b", "a--b"),
    ],
)
def test_letters_with_an_ascii_spelling_get_it(original: str, made: str) -> None:
    assert name(original) == name(unicodedata.normalize("NFD", original)) == made


def test_what_has_no_ascii_spelling_gets_a_mark_of_its_own() -> None:
    made = [name(original) for original in ("日本語", "العربية", "Москва", "🎉", "!!!", "???", "", "\udcff")]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch(r"data-[0-9a-f]{8}", one) for one in made)
    assert re.fullmatch(r"2024-[0-9a-f]{8}", name("日本語 2024"))


def test_long_names_are_cut_and_stay_distinct() -> None:
    first, second = name("x" * 254 + "a"), name("x" * 254 + "b")
    assert first != second and len(first) == len(second) == 40


@examples(50)
@given(st.text(max_size=60))
def test_every_name_makes_a_valid_one(original: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9._-]{1,40}", name(original))
