"""Indented JSON is the standard library's, byte for byte."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stages.tokens.json_text import indented

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
values = st.recursive(
    scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=30
) | st.lists(st.lists(st.text(), min_size=2, max_size=2))


@given(values)
def test_it_is_what_json_gives(value: Any) -> None:
    assert indented(value) == json.dumps(value, ensure_ascii=False, indent=1)
