"""Kinds of values that the JSON files of a model folder may have: each has words for messages and a check."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError

MAX_INTEGER = 2**31
"""Sizes, positions and token ids of any model are far below it."""
MAX_SHOWN_CHARACTERS = 60

_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,63}")
"""A name such as `silu` or `5.24.0`: not a path, a URL, or a repository (`owner/name`)."""


@dataclass(frozen=True)
class Kind:
    """What a value has to be."""

    words: str
    accepts: Callable[[Any], bool]


def is_integer(value: Any) -> bool:
    """Whether it is an integer of a size that models have. JSON's `true` is not one."""
    return type(value) is int and abs(value) < MAX_INTEGER


def is_number(value: Any) -> bool:
    """Whether it is a finite number; Python's JSON reader also accepts `NaN` and `Infinity`."""
    return type(value) is int or (type(value) is float and math.isfinite(value))


def is_word(value: Any) -> bool:
    """Whether it is a plain name, which cannot be a path, a URL or a repository."""
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def is_text(value: Any) -> bool:
    """Whether it is a string."""
    return isinstance(value, str)


def is_list_of(item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check for lists whose items all pass `item`."""
    return lambda value: isinstance(value, list) and all(map(item, value))


def is_map_of(item: Callable[[Any], bool]) -> Callable[[Any], bool]:
    """A check for objects whose values all pass `item`."""
    return lambda value: isinstance(value, dict) and all(map(item, value.values()))


def one_of(*values: str) -> Kind:
    """One of a few strings."""
    return Kind(" or ".join(map(repr, values)), lambda value: isinstance(value, str) and value in values)


INTEGER = Kind(f"an integer below {MAX_INTEGER}", is_integer)
NUMBER = Kind("a finite number", is_number)
BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
FALSE = Kind("false", lambda value: value is False)
WORD = Kind("a plain name (letters, digits, '_', '.', '+', '-')", is_word)
WORDS = Kind("a list of plain names", is_list_of(is_word))
TOKEN_ID = Kind("a token id", is_integer)
TOKEN_IDS = Kind("a token id or a list of token ids", lambda value: is_integer(value) or is_list_of(is_integer)(value))


def check_values(path: Path, content: Any, kinds: Mapping[str, Kind], why: Mapping[str, str], known: str) -> None:
    """Checks that a JSON object has known keys only, with values of their kinds, or null.

    Args:
        path: the file, for messages.
        content: what was read from it.
        kinds: the allowed keys.
        why: reasons why some keys are refused, by key.
        known: whose keys `kinds` are, for messages.

    Raises:
        ModelRefusedError: it is not an object, has another key, or a value of another kind.
    """
    if not isinstance(content, dict):
        raise ModelRefusedError(f"{path} is not a JSON object; export the model again")
    for key, value in content.items():
        if key in why:
            raise ModelRefusedError(f"{path}: {key!r} is refused: {why[key]}")
        if key not in kinds:
            raise ModelRefusedError(
                f"{path}: {_shown(key)} is not a known key of {known}; remove it, or export the model again"
            )
        if value is not None and not kinds[key].accepts(value):
            raise ModelRefusedError(
                f"{path}: {key!r} is {_shown(value)}, must be {kinds[key].words}; correct it, or export the model again"
            )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
