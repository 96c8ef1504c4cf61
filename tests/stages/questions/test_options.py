from __future__ import annotations

from typing import Any

import pytest

from stages.questions.options import Options, option_field, read_options

TWO = ("kidney", "liver")


@pytest.mark.parametrize(
    ("row", "field", "labels"),
    [
        ({"options": ["kidney", "liver"]}, "options", ()),
        ({"choices": ["kidney", "liver"]}, "choices", ()),
        ({"endings": ["kidney", "liver"]}, "endings", ()),
        ({"options": {"A": "kidney", "B": "liver"}}, "options", ("A", "B")),
        ({"choices": {"text": ["kidney", "liver"], "label": ["1", "2"]}}, "choices", ("1", "2")),
        ({"choices": [{"label": "A", "text": "kidney"}, {"label": "B", "text": "liver"}]}, "choices", ("A", "B")),
        ({"options": [{"key": "A", "value": "kidney"}, {"key": "B", "value": "liver"}]}, "options", ("A", "B")),
        ({"opa": "kidney", "opb": "liver"}, "opa", ()),
    ],
)
def test_public_spellings_of_options(row: dict[str, Any], field: str, labels: tuple[str, ...]) -> None:
    assert option_field([{"id": 1}, row]) == field
    assert read_options(row, field) == Options(TWO, labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("kidney", "must be a list of texts, or an object of texts by label, not a text"),
        (None, "not null"),
        ([1, 2], "an option must be a text, not a number"),
        (["kidney", None], "an option must be a text, not null"),
        (["kidney", ["liver"]], "an option must be a text, not a list"),
        ([{"name": "kidney"}], "an option must be a text, not null"),
        ({"A": "kidney", "B": 2}, "an option must be a text, not a number"),
        ({"text": ["kidney", "liver"], "label": ["A", "A"]}, "two options have the same label"),
        ({"A": "kidney", "A ": "liver"}, "two options have the same label"),
        ({"\u00e9": "kidney", "e\u0301": "liver"}, "two options have the same label"),
        ({"text": ["kidney", "liver"], "label": ["A"]}, "an option must be a text, not a list"),
        ([{"key": 1, "value": "kidney"}], "an option must be a text, not a number"),
    ],
)
def test_other_forms_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_options({"options": options}, "options")


def test_without_options_there_is_no_field() -> None:
    assert option_field([{"question": "?"}]) is None
