"""Fields by name and by path, and the reason why a record has no text."""

from __future__ import annotations

from typing import Any

import pytest

from stages.corpus.reading.fields import ABSENT, columns_of, paths_in, text_of, value_at
from stages.corpus.reading.record import BadRecord


@pytest.mark.parametrize(
    ("row", "field", "value"),
    [
        ({"data": {"text": "a"}}, "data.text", "a"),
        ({"data.text": "literal", "data": {"text": "inner"}}, "data.text", "literal"),
        ({"a": {"b.c": 1, "b": {"c": 2}}}, "a.b.c", 1),
        ({"a": {"b": {"c": None}}}, "a.b.c", None),
        ({"a": {"b": "x"}}, "a.b.c", ABSENT),
        ({"a": ["x"]}, "a.0", ABSENT),
        ({"a": {}}, "a.b", ABSENT),
        ({"a": {}}, "a.", ABSENT),
        ({}, "", ABSENT),
    ],
)
def test_a_path_leads_into_objects_and_a_key_with_a_dot_wins(row: dict[str, Any], field: str, value: Any) -> None:
    assert value_at(row, field) is value or value_at(row, field) == value


@pytest.mark.parametrize(
    ("row", "field", "text"),
    [
        ({"q": " one ", "d": {"a": "two"}}, "q+d.a", "one\n\ntwo"),
        ({"q": "one", "a": None}, "q+a", "one"),
        ({"q+a": " both "}, "q+a", " both "),
        ({"d": {"text": " a "}}, "d.text", " a "),
    ],
)
def test_a_text_is_one_field_or_several(row: dict[str, Any], field: str, text: str) -> None:
    assert text_of(row, field) == text


@pytest.mark.parametrize(
    ("row", "field", "reason"),
    [
        ({"id": 1, "text": None}, "text", "field 'text' is null"),
        ({"id": 1, "data": {"text": None}}, "data.text", "field 'data.text' is null"),
        ({"id": 1, "text": " \n"}, "text", "field 'text' is empty"),
        ({"id": 1, "body": "a"}, "text", "no field 'text'; there are: body, id"),
        ({"q": None, "a": ""}, "q+a", "field 'q+a' is empty"),
        ({"q": None}, "q+a", "field 'q+a' is null"),
        ({"text": ["a"]}, "text", "field 'text' is of type list, not string"),
        ({"text": 5}, "text", "field 'text' is of type number, not string"),
        ({"text": True}, "text", "field 'text' is of type boolean, not string"),
        ({"text": {"a": "b"}}, "text", "field 'text' is of type object, not string"),
    ],
)
def test_the_reason_says_what_is_wrong_with_the_field(row: dict[str, Any], field: str, reason: str) -> None:
    assert text_of(row, field) == BadRecord(reason)


def test_fields_that_were_not_read_are_listed_too() -> None:
    assert text_of({"id": 1}, "text", ["body", "id"]) == BadRecord("no field 'text'; there are: body, id")


def test_paths_and_columns() -> None:
    row = {"a": {"b": {"c": 1}, "d": []}, "e": None}
    assert dict(paths_in(row)) == {"a": row["a"], "a.b": {"c": 1}, "a.b.c": 1, "a.d": [], "e": None}
    assert columns_of("a.b+c") == {"a.b+c", "a", "a.b", "c"}
