"""Evaluation items as decontamination uses them: the question with its answer, and the contexts."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

from stages.corpus.reading.listing import Listing
from stages.store import InputError

_JSON_LINES = re.compile(r".*\.(jsonl|ndjson)(\.gz)?", re.IGNORECASE)
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

    A row is a JSON object with `question`, and optionally `id`, `options`, `answer` (which of the options, or a text)
    and `context` (a text, or several in lists or objects).

    Raises:
        InputError: a line is not valid or has no question (with file and line), a file is damaged, or a set has no
            items or a name that cannot be a file name.
    """
    for name, listing in sorted(sets.items()):
        if not _NAME.fullmatch(name):
            raise InputError(f"evaluation set {name!r}: a name may have letters, digits, dot, dash and underscore")
        count = 0
        for file in listing.files:
            if _JSON_LINES.fullmatch(file.name):
                for item in _items(name, listing, file.name):
                    count += 1
                    yield item
        if not count:
            raise InputError(
                f"evaluation set {name}: {listing.location} has no questions; a set consists of JSON Lines files"
            )


def _items(name: str, listing: Listing, file: str) -> Iterator[Item]:
    path = listing.path(file)
    with listing.open(file) as raw:
        stream: Any = gzip.GzipFile(fileobj=raw) if file.lower().endswith(".gz") else raw
        number = 0
        try:
            for number, line in enumerate(stream, 1):
                line = line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n") if number == 1 else line.rstrip(b"\r\n")
                if line.strip():
                    yield _item(name, line, number, f"evaluation set {name}: {path}:{number}")
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"evaluation set {name}: {path} is truncated or damaged after line {number}: {error}; replace it"
            ) from error


def _item(name: str, line: bytes, number: int, where: str) -> Item:
    try:
        row = orjson.loads(line)
    except orjson.JSONDecodeError as error:
        raise InputError(f"{where}: not valid JSON: {error}; repair or remove the line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: a JSON {type(row).__name__}, not an object; repair or remove the line")
    question = row.get("question")
    if not isinstance(question, str):
        raise InputError(f"{where}: no field 'question'; the fields are: {', '.join(sorted(row))}")
    answer = _answer(row.get("options"), row.get("answer"))
    asked = f"{question}\n{answer}" if answer else question
    return Item(name, str(row.get("id", number)), asked, tuple(_strings(row.get("context"))), line)


def _answer(options: Any, answer: Any) -> str:
    """The gold answer: the option that `answer` refers to, else `answer` if it is a text, else an empty string."""
    if isinstance(options, list) and type(answer) is int and 0 <= answer < len(options):
        answer = options[answer]
    elif isinstance(options, dict) and isinstance(answer, str):
        answer = options.get(answer, answer)
    return answer if isinstance(answer, str) else ""


def _strings(value: Any) -> list[str]:
    """All strings in a value that may be a string, a list or an object of them."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [text for item in value for text in _strings(item)] if isinstance(value, list) else []
