"""JSON that parsers read differently is refused with its reason; all other JSON is read as it is written."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.strict_json import MAXIMUM_DEPTH, loads
from tests.support import examples

DEEP = "[" * MAXIMUM_DEPTH + "]" * MAXIMUM_DEPTH


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"text": "a", "text": "b"}', "the key 'text' occurs more than once"),
        ('{"text" : "a", "text": "b"}', "the key 'text' occurs more than once"),
        ('{"a": "a", "\\u0061": "b"}', "the key 'a' occurs more than once"),
        ('{"a": {"b": [{"c": 1, "c": 2}]}}', "the key 'c' occurs more than once"),
        ('{"a\\\\":1,"b":2,"b":3}', "the key 'b' occurs more than once"),
        (json.dumps({"x" * 500: 1})[:-1] + ', "' + "x" * 500 + '": 2}', f"the key '{'x' * 60}...' occurs"),
        ('{"score": NaN}', "NaN is not a JSON value"),
        ('{"score": [-Infinity]}', "-Infinity is not a JSON value"),
        ('{"score": 1e400}', "broken JSON: number is infinity"),
        ("[" + DEEP + "]", f"nested more than {MAXIMUM_DEPTH} levels deep"),
        ("[" * 100_000 + "]" * 100_000, f"nested more than {MAXIMUM_DEPTH} levels deep"),
        ('{"text": "\\ud800"}', "lone surrogate: "),
        ('{"text": "\\udc00"}', "lone surrogate: "),
        ('{"text": "\ud800"}', "lone surrogate: half of a pair at byte 10"),
        (b'{"text": "caf\xe9"}', "invalid UTF-8: invalid continuation byte at byte 13"),
        (b'{"text": "cl\xednica"}', "invalid UTF-8: invalid continuation byte at byte 12"),
        ('{"text": "a', "broken JSON: unexpected end of data"),
        ('{"text": "a\x00b"}', "broken JSON: unexpected control character"),
        ("{'text': 'a'}", "broken JSON: "),
        ("", "broken JSON: "),
    ],
)
def test_what_parsers_differ_in_is_refused(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError) as error:
        loads(text)
    assert str(error.value).startswith(reason)


def test_a_repeated_key_among_many_is_found_without_comparing_all_pairs() -> None:
    """Comparing each with each of these takes minutes."""
    keys = ", ".join(f'"{number}": 0' for number in range(200_000))
    with pytest.raises(ValueError, match="the key '199999' occurs more than once"):
        loads(f'{{{keys}, "199999": 0}}')


@pytest.mark.parametrize(
    "text",
    [
        '{"text": "he said \\"text\\": \\"text\\": twice"}',
        '{"a" : 1, "b"\t:{"a":2}, "c": [{"a": 3}, {"a": 4}]}',
        '{"n": 123456789012345678901234567890, "m": -9223372036854775809, "x": 1e300}',
        '{"text": "\\u2028 \\u0000 \\ud83d\\ude00"}',
        DEEP,
    ],
)
def test_other_json_is_read_exactly(text: str) -> None:
    assert loads(text) == loads(text.encode()) == json.loads(text)


VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
              st.text(st.characters(codec="utf-8"), max_size=8), st.sampled_from(['":', '" :', '\\":', "\\"])),
    lambda inner: st.one_of(st.lists(inner, max_size=3),
                            st.dictionaries(st.sampled_from(["a", "b", '":', "\\"]), inner, max_size=3)),
    max_leaves=8,
)  # fmt: skip


@given(VALUES, st.sampled_from([(",", ":"), (", ", ": "), (" ,", " : ")]))
@examples(50)
def test_a_value_survives_being_written_and_a_second_key_is_noticed(value: Any, separators: tuple[str, str]) -> None:
    text = json.dumps(value, separators=separators)
    assert loads(text) == value
    item, key = separators
    with pytest.raises(ValueError, match="more than once"):
        loads(f'{{"a"{key}{text}{item}"a"{key}{text}}}')
