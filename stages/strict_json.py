"""JSON that all parsers read alike: what they would differ in is an error, never a silent choice (as in RFC 7493)."""

from __future__ import annotations

import json
import re
from contextlib import suppress
from typing import Any

import orjson

MAXIMUM_DEPTH = 200
"""Most levels of values inside one another."""
KEY_CHARACTERS = 60
"""How many characters of a key an error shows."""

_KEY_END = re.compile(rb'"[ \t\r\n]*:')
"""Ends every key of an object; may occur in strings too."""
_HALF_PAIR = re.compile(rb"\xed[\xa0-\xbf][\x80-\xbf]")
"""How half of a surrogate pair is written where UTF-8 is taken loosely."""
_PLAIN = frozenset({str, int, bool, type(None)})
"""Types of values that have nothing inside and are exact."""
_EXACT_INTEGER = 2.0**63
"""A float at least this large may have been written as an integer that orjson rounded."""


def loads(data: bytes | str) -> Any:
    """Parses one JSON value; integers are exact at any size.

    Raises:
        ValueError: what is wrong with it: broken JSON or UTF-8, half of a surrogate pair, a repeated key in an object,
            NaN or Infinity, a number beyond the range of a double, or more than `MAXIMUM_DEPTH` levels.
    """
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise ValueError(_reason(raw, error)) from None
    keys, rounded = _inspect(value)
    if rounded or keys != len(_KEY_END.findall(raw)):
        # A repeated key, a large number, or a string that looks as if a key ended in it: the slower parser tells.
        return json.loads(raw.decode(), object_pairs_hook=_unique_keys)
    return value


def _inspect(value: Any) -> tuple[int, bool]:
    """Number of keys in all objects of a value, and whether an integer in it may have been rounded."""
    if type(value) is dict and _PLAIN.issuperset(map(type, value.values())):
        return len(value), False  # as most records are
    keys, rounded = 0, False
    level, depth = [value], 0
    while level:
        if depth == MAXIMUM_DEPTH:
            raise ValueError(f"nested more than {MAXIMUM_DEPTH} levels deep")
        below: list[Any] = []
        for item in level:
            kind = type(item)
            if kind is dict:
                keys += len(item)
                below.extend(item.values())
            elif kind is list:
                below.extend(item)
            elif kind is float and abs(item) >= _EXACT_INTEGER:
                rounded = True
        level, depth = below, depth + 1
    return keys, rounded


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            shown = name if len(name) <= KEY_CHARACTERS else f"{name[:KEY_CHARACTERS]}..."
            raise ValueError(f"the key {shown!r} occurs more than once in an object")
        found[name] = value
    return found


def _reason(raw: bytes, error: orjson.JSONDecodeError) -> str:
    """Why orjson refuses the data, in more words than its own where it does not tell."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as wrong:
        if _HALF_PAIR.match(raw, wrong.start):
            return f"lone surrogate: half of a pair at byte {wrong.start}"
        return f"invalid UTF-8: {wrong.reason} at byte {wrong.start}"
    if "depth" in error.msg:
        return f"nested more than {MAXIMUM_DEPTH} levels deep"
    if "surrogate" in error.msg:  # UTF-8 cannot represent half of a pair
        return f"lone surrogate: {error}"
    return _constant(text) or f"broken JSON: {error}"


def _constant(text: str) -> str:
    """The reason if a value is NaN or Infinity, as Python's own json writes them; empty if it is not."""
    found: list[str] = []
    with suppress(ValueError, RecursionError):  # where it is broken otherwise, orjson says so
        json.loads(text, parse_constant=found.append)
    return f"{found[0]} is not a JSON value" if found else ""
