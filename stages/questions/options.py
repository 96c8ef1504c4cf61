"""The options of a question in the spellings of public sets: a list, an object by label, or a field for each."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

OPTION_FIELDS = ("options", "choices", "endings")
OPTION_COLUMNS = ("opa", "opb", "opc", "opd", "ope")
"""MedMCQA's: a field for each option."""
_TEXT_KEYS, _LABEL_KEYS = ("text", "value"), ("label", "key")


@dataclass(frozen=True)
class Options:
    """The options of one question."""

    texts: tuple[str, ...]
    """As in the file."""
    labels: tuple[str, ...] = ()
    """What an answer may call them by; empty if the file has no labels."""


def plain(text: str) -> str:
    """A text as answers, labels and options are compared: NFC, without white space around it."""
    return unicodedata.normalize("NFC", text).strip()


def option_field(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """The field of a set's options: the first known name that a row has; `opa` stands for a field each."""
    for name in (*OPTION_FIELDS, OPTION_COLUMNS[0]):
        if any(name in row for row in rows):
            return name
    return None


def read_options(row: Mapping[str, Any], field: str) -> Options:
    """The options of one row, which has `field`.

    The forms: `["..."]`; `{"A": "..."}` (MedQA); `{"text": ["..."], "label": ["A"]}` (ARC); `[{"key": "A", "value":
    "..."}]` (BigBio); `opa` to `ope` (MedMCQA).

    Raises:
        ValueError: another form, an option that is not a text, or two equal labels.
    """
    value = row[field]
    if field == OPTION_COLUMNS[0]:
        value = [row[name] for name in OPTION_COLUMNS if name in row]
    texts, labels = _texts_and_labels(value)
    if not all(isinstance(item, str) for item in (*texts, *labels)):
        wrong = next(item for item in (*texts, *labels) if not isinstance(item, str))
        raise ValueError(f"{field}: an option must be a text, not {_json_type(wrong)}")
    if len({plain(label) for label in labels}) < len(labels):
        raise ValueError(f"{field}: two options have the same label")
    return Options(tuple(texts), tuple(labels))


def _texts_and_labels(value: Any) -> tuple[list[Any], list[Any]]:
    if isinstance(value, dict):
        columns = [next((value[key] for key in keys if key in value), None) for keys in (_TEXT_KEYS, _LABEL_KEYS)]
        texts, labels = columns
        if isinstance(texts, list) and isinstance(labels, list) and len(texts) == len(labels):
            return texts, labels
        return list(value.values()), list(value)
    if isinstance(value, list):
        if value and all(isinstance(item, dict) for item in value):
            texts = [next((item[key] for key in _TEXT_KEYS if key in item), None) for item in value]
            labels = [next((item[key] for key in _LABEL_KEYS if key in item), None) for item in value]
            return texts, [] if labels == [None] * len(labels) else labels
        return value, []
    raise ValueError(f"the options must be a list of texts, or an object of texts by label, not {_json_type(value)}")


def _json_type(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "a text", bool: "a truth value", type(None): "null"}
    return names.get(type(value), "a number")
