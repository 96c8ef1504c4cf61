"""Question sets: reading JSON Lines with checks, the fixed subset, and the baselines that cost nothing.

A row is `{"id", "question", "options": [...], "answer": index, "context"?, "subject"?}`; other keys are ignored.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from stages.corpus import Listing, list_files
from stages.evaluation.config import TRAIN_SUFFIX, check_name
from stages.store import InputError

ROLE = "set/"
"""Inputs of the stage whose role begins with this are question sets."""

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_OPTIONS = 26


@dataclass(frozen=True)
class Question:
    """One multiple-choice question."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    """Index of the right option."""
    context: str = ""
    subject: str = ""


def read_set(listing: Listing) -> list[Question]:
    """All questions of a set's files, in order.

    Raises:
        InputError: with file and line: invalid UTF-8, broken JSON, a missing field, an answer that is no option, an
            id that was there before; or a set without any question.
    """
    questions: list[Question] = []
    seen: dict[str, str] = {}
    for file in listing.files:
        path = listing.path(file.name)
        with listing.open(file.name) as raw:
            for number, line in _lines(raw, file.name, path):
                where = f"{path}:{number}"
                question = parse(line, where)
                if question.id in seen:
                    raise InputError(
                        f"{where}: id {question.id!r} was there before, at {seen[question.id]}; the gate pairs "
                        "answers by id, so give every question its own"
                    )
                seen[question.id] = where
                questions.append(question)
    if not questions:
        raise InputError(f"{listing.location}: no question in it; a set is JSON Lines, one question a line")
    return questions


def _lines(raw: BinaryIO, name: str, path: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank; a byte-order mark is taken off."""
    stream: Any = gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw
    try:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is cut off or damaged ({error}); fetch it again") from error


def parse(line: bytes, where: str) -> Question:
    """One row; `where` is `file:line` and begins every message.

    Raises:
        InputError: what is wrong with the row, and what is wanted.
    """
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not valid UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error}); one question a line is wanted") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: a question is a JSON object, this is {type(row).__name__}")
    missing = [key for key in ("question", "options", "answer") if key not in row]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} missing; a question has id, question, options, answer")
    options = row["options"]
    if not isinstance(options, list) or not all(isinstance(item, str) and item.strip() for item in options):
        raise InputError(f"{where}: options must be a list of texts that are not empty")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise InputError(f"{where}: {len(options)} options, wanted are 2 to {MAX_OPTIONS}")
    answer = row["answer"]
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        raise InputError(
            f"{where}: answer {answer!r} is no index of an option; wanted is a whole number, 0 to {len(options) - 1}"
        )
    text = _text(row, "question", where).strip()
    if not text:
        raise InputError(f"{where}: question is empty")
    name = row.get("id")
    if name is not None and not isinstance(name, str | int):
        raise InputError(f"{where}: id must be a text or a whole number, this is {name!r}")
    return Question(
        id=_content_id(text, options) if name is None else str(name),
        question=text,
        options=tuple(item.strip() for item in options),
        answer=answer,
        context=_text(row, "context", where).strip(),
        subject=_text(row, "subject", where).strip(),
    )


def _text(row: Mapping[str, Any], key: str, where: str) -> str:
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise InputError(f"{where}: {key} must be a text, this is {type(value).__name__}")
    return value


def _content_id(question: str, options: Sequence[str]) -> str:
    """A row without id is named by what it asks, so that two runs agree on it."""
    return hashlib.blake2b("\0".join([question, *options]).encode(), digest_size=8).hexdigest()


def subset(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """`limit` questions that seed and ids fix, in the order of the set; all where the limit is none or larger.

    The `limit` smallest keyed hashes of the ids are taken: the choice depends neither on the order of rows nor on
    their number, and a smaller limit gives a part of what a larger one gives.
    """
    if limit is None or limit >= len(questions):
        return list(questions)
    chosen = set(sorted((q.id for q in questions), key=lambda item: keyed_hash(item, seed))[:limit])
    return [q for q in questions if q.id in chosen]


def keyed_hash(text: str, seed: int) -> bytes:
    """16 bytes of blake2b over `text`, keyed by `seed`."""
    return hashlib.blake2b(text.encode(), digest_size=16, key=str(seed).encode()).digest()


@dataclass(frozen=True)
class Baselines:
    """Accuracies that need no model."""

    random: float
    """Mean of 1/number of options: guessing."""
    majority: float
    """Always giving the most frequent answer, see `baselines`."""


def baselines(questions: Sequence[Question]) -> Baselines:
    """Random and majority accuracy on exactly these questions.

    The majority baseline is the better of two constant answers: always the most frequent *position* (what a
    four-option set gives away), and always the most frequent *text*, where it is among the options (what
    yes/no/maybe gives away even if the options' order changes from row to row). Texts are compared case-folded.
    """
    positions = Counter(q.answer for q in questions)
    texts = Counter(q.options[q.answer].casefold() for q in questions)
    best = max(max(positions.values()), max(texts.values()))
    return Baselines(sum(1 / len(q.options) for q in questions) / len(questions), best / len(questions))


def question_sets(location: str | os.PathLike[str]) -> dict[str, str]:
    """Question sets in a folder with all below it, or one file: name -> path or URL, sorted by name.

    A set is called as its file without `.jsonl` or `.jsonl.gz`. Those ending in `_train` are there too: they are
    decontaminated against, and `scored` leaves them out.

    Args:
        location: local path or any fsspec URL.

    Raises:
        InputError: nothing is there, no such file among what is, or two with one name.
        ConfigError: a name that cannot be a set's.
    """
    listing = list_files(location, [f"*{suffix}" for suffix in SUFFIXES])
    found: dict[str, str] = {}
    for file in listing.files:
        path = listing.path(file.name)
        base = file.name.rsplit("/", 1)[-1]
        suffix = next(end for end in reversed(SUFFIXES) if base.lower().endswith(end))
        name = base[: -len(suffix)]
        check_name(name, path)
        if name in found:
            raise InputError(f"{found[name]} and {path} would both be the set {name!r}; rename one of them")
        found[name] = path
    return dict(sorted(found.items()))


def scored(names: Iterable[str]) -> list[str]:
    """The sets that are scored: all but those ending in `_train`."""
    return [name for name in names if not name.endswith(TRAIN_SUFFIX)]
