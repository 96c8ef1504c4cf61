"""Fields of a record by name or path, and its text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from stages.corpus.reading.record import BadRecord, Unreadable

MOST_NAMES, NAME_CHARACTERS = 20, 60
"""How many fields a reason lists, and how many characters of each name."""

_TYPE_NAMES = {
    **{bool: "boolean", int: "number", float: "number", str: "string", list: "list", dict: "object"},
    **{type(None): "null", Unreadable: "unreadable"},
}

ABSENT = object()
"""The value of a field that a record does not have."""


def value_at(row: dict[str, Any], field: str) -> Any:
    """The value of a field, `ABSENT` if there is none. `data.text` is `text` inside the object `data`, unless a key has
    the dot in its name."""
    found: Any = row
    while isinstance(found, dict):
        if field in found:
            return found[field]
        head, _, field = field.partition(".")
        if not field:
            break
        found = found.get(head)
    return ABSENT


def paths_in(row: dict[str, Any]) -> list[tuple[str, Any]]:
    """All fields of a record with their values, also those inside objects, by their paths."""
    found: list[tuple[str, Any]] = []
    objects = [("", row)]
    while objects:
        prefix, inner = objects.pop()
        for name, value in inner.items():
            found.append((f"{prefix}{name}", value))
            if isinstance(value, dict):
                objects.append((f"{prefix}{name}.", value))
    return found


def columns_of(field: str) -> set[str]:
    """Names of columns that a field of the recipe may refer to: `a.b+c` is `a.b+c`, or `a.b` or `a`, and `c`."""
    names = {field, *field.split("+")}
    return names | {name.split(".", 1)[0] for name in names}


def parts_of(row: dict[str, Any], field: str) -> list[str]:
    """The fields that make up a document's text: one, or several joined by `+`."""
    return [field] if value_at(row, field) is not ABSENT else field.split("+")


def type_name(value: Any) -> str:
    """A value's type as JSON calls it."""
    return _TYPE_NAMES.get(type(value)) or type(value).__name__


def text_of(row: dict[str, Any], field: str, columns: Sequence[str] = ()) -> str | BadRecord:
    """The document of a record: one field, or several (`question+answer`) joined by a blank line.

    Args:
        columns: all fields of the record, where `row` has only some.
    """
    names = parts_of(row, field)
    values = {name: value_at(row, name) for name in names}
    parts = []
    for name, value in values.items():
        if value is ABSENT or value is None:
            continue
        if not isinstance(value, str):
            return BadRecord(f"field {name!r} is of type {type_name(value)}, not string")
        if value.strip():
            parts.append(value.strip() if len(names) > 1 else value)
    if parts:
        return "\n\n".join(parts)
    if all(value is ABSENT for value in values.values()):
        return BadRecord(f"no field {field!r}; there are: {list_names(columns or sorted(row))}")
    return BadRecord(f"field {field!r} is {'null' if not any(map(_is_string, values.values())) else 'empty'}")


def _is_string(value: Any) -> bool:
    return isinstance(value, str)


def list_names(names: Sequence[str]) -> str:
    """Field names for a reason, shortened: a record may have any number of them, of any length."""
    shown = [name if len(name) <= NAME_CHARACTERS else f"{name[:NAME_CHARACTERS]}..." for name in names[:MOST_NAMES]]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more:,} more" if more else "")
