"""Evaluation items as decontamination uses them: the question with its answer, and the contexts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from stages.corpus.reading.listing import Listing
from stages.questions import Row, read_rows
from stages.store import InputError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class Item:
    """One item of an evaluation set."""

    set: str
    id: str
    """Its own id, else the number of its line."""
    asked: str
    """The question and, on a line of its own, the gold answer if there is one."""
    contexts: tuple[str, ...]
    line: bytes
    """Its row as in the file, without the line end."""

    @property
    def name(self) -> str:
        """Set and id, `medqa/17`."""
        return f"{self.set}/{self.id}"


def read_items(sets: Mapping[str, Listing]) -> Iterator[Item]:
    """The items of all sets, in order of sets, files and lines.

    A row has a question, and optionally `id`, options, an answer (which of the options, or without options a text) and
    `context` (a text, or several in lists or objects); see `read_rows` for the spellings.

    Raises:
        InputError: see `read_rows`; or a set has a name that cannot be a file name.
    """
    for name, listing in sorted(sets.items()):
        if not _NAME.fullmatch(name):
            raise InputError(f"evaluation set {name!r}: a name may have letters, digits, dot, dash and underscore")
        try:
            found = read_rows(listing)
        except InputError as error:
            raise InputError(f"evaluation set {name}: {error}") from error
        for row in found.rows:
            yield _item(name, row)


def _item(name: str, row: Row) -> Item:
    own = row.fields.get("id")
    asked = f"{row.question}\n{row.answer_text}" if row.answer_text else row.question
    number = row.number if own is None else own
    return Item(name, str(number), asked, tuple(_strings(row.fields.get("context"))), row.line)


def _strings(value: Any) -> list[str]:
    """All strings in a value that may be a string, a list or an object of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []
