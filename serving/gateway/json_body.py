"""The JSON of a request body, refused unless it can be forwarded as it was meant.

Python's parser accepts more than JSON (NaN, UTF-16, a repeated key of which the last counts) and values that cannot be
serialized again (half a surrogate pair, 1e400) or that an engine cannot represent (10^30).
"""

from __future__ import annotations

import json
import math
from typing import Any

from serving.gateway.responses import RefusedError

MAX_DEPTH = 64
"""Levels of nested arrays and objects. JSON schemas of tools have ten or so; Python serializes less than a thousand."""
MAX_INTEGER_DIGITS = 19
"""Of integers that are read as such: 64 bits with a sign."""
OUT_OF_RANGE = "is not a finite number, or is an integer beyond 64 bits"
SURROGATE = "contains half of a surrogate pair, which is not Unicode text"


def parse_object(body: bytes) -> dict[str, Any]:
    """The JSON object of a body: Unicode strings, finite numbers, integers of 64 bits, at most `MAX_DEPTH` levels.

    Raises:
        RefusedError: 400, with the path of the invalid value, as `messages[0].content`, if the body is JSON at all.
    """
    try:
        value = json.loads(body.decode(), object_pairs_hook=_unique_keys, parse_int=_integer, parse_constant=float)
    except RecursionError:
        raise RefusedError(400, f"the body is nested deeper than {MAX_DEPTH} levels", "invalid_json") from None
    except ValueError as error:
        raise RefusedError(400, f"the body is not valid JSON in UTF-8: {error}", "invalid_json") from None
    if not isinstance(value, dict):
        raise RefusedError(400, "the body must be a JSON object", "invalid_json")
    if problem := _find_problem(value):
        path, reason = problem
        param = path.removeprefix(".") if path else None
        raise RefusedError(400, f"{param or 'the body'} {reason}", "bad_field", param)
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise RefusedError(400, f"the body has the key {key!r} twice in one object", "invalid_json")
        found[key] = value
    return found


def _integer(digits: str) -> int | float:
    """The integer, or infinity for one that is too long, so that `_find_problem` can name its field."""
    return int(digits) if len(digits.removeprefix("-")) <= MAX_INTEGER_DIGITS else math.inf


def _find_problem(value: Any, depth: int = 0) -> tuple[str, str] | None:
    """(path below `value`, reason) of the first value that cannot be forwarded."""
    if isinstance(value, str):
        return None if _is_unicode(value) else ("", SURROGATE)
    if isinstance(value, int | float):
        in_range = math.isfinite(value) if isinstance(value, float) else -(1 << 63) <= value < 1 << 63
        return None if in_range else ("", OUT_OF_RANGE)
    if not isinstance(value, dict | list):
        return None
    if depth == MAX_DEPTH:
        return "", f"is nested deeper than {MAX_DEPTH} levels"
    for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
        if isinstance(key, str) and not _is_unicode(key):
            return "", f"has a key that {SURROGATE}"
        if problem := _find_problem(inner, depth + 1):
            return (f".{key}" if isinstance(key, str) else f"[{key}]") + problem[0], problem[1]
    return None


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
