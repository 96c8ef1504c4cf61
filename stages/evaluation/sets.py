"""Question sets: reading and checking JSON Lines, choosing a subset, and baselines without a model.

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
"""Prefix of the roles of question sets among the stage's inputs."""

SUFFIXES = (".jsonl", ".jsonl.gz")
MAX_OPTIONS = 26


@dataclass(frozen=True)
class Question:
    """One multiple-choice question."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    """Index of the correct option."""
    context: str = ""
    subject: str = ""


def read_set(listing: Listing) -> list[Question]:
    """All questions of a set's files, in order.

    Raises:
        InputError: with file and line: invalid UTF-8 or JSON, a missing field, an answer that is not an option, or a
            duplicate id; or a set without questions.
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
                        f"{where}: duplicate id {question.id!r}, first at {seen[question.id]}; the gate pairs answers "
                        "by id, so every question needs a unique one"
                    )
                seen[question.id] = where
                questions.append(question)
    if not questions:
        raise InputError(f"{listing.location}: no questions; a set is JSON Lines, one question per line")
    return questions


def _lines(raw: BinaryIO, name: str, path: str) -> Iterator[tuple[int, bytes]]:
    """Numbered lines that are not blank, without byte-order mark."""
    stream: Any = gzip.GzipFile(fileobj=raw) if name.lower().endswith(".gz") else raw
    try:
        for number, line in enumerate(stream, start=1):
            text = line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line
            if text.strip():
                yield number, text
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(f"{path}: the gzip file is truncated or damaged ({error}); download it again") from error


def parse(line: bytes, where: str) -> Question:
    """Parses one row; `where` is `file:line`, the prefix of error messages.

    Raises:
        InputError: an invalid row.
    """
    try:
        row = json.loads(line.decode())
    except UnicodeDecodeError as error:
        raise InputError(f"{where}: not valid UTF-8 (byte {error.start}); save the file as UTF-8") from error
    except ValueError as error:
        raise InputError(f"{where}: not valid JSON ({error}); a set has one question per line") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: a question must be a JSON object, not {type(row).__name__}")
    missing = [key for key in ("question", "options", "answer") if key not in row]
    if missing:
        raise InputError(f"{where}: {', '.join(missing)} missing; a question has id, question, options, answer")
    options = row["options"]
    if not isinstance(options, list) or not all(isinstance(item, str) and item.strip() for item in options):
        raise InputError(f"{where}: options must be a list of non-empty texts")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise InputError(f"{where}: {len(options)} options; must be 2 to {MAX_OPTIONS}")
    answer = row["answer"]
    if isinstance(answer, bool) or not isinstance(answer, int) or not 0 <= answer < len(options):
        raise InputError(
            f"{where}: answer {answer!r} is not the index of an option; must be an integer, 0 to {len(options) - 1}"
        )
    text = _text(row, "question", where).strip()
    if not text:
        raise InputError(f"{where}: question is empty")
    name = row.get("id")
    if name is not None and not isinstance(name, str | int):
        raise InputError(f"{where}: id must be a text or an integer, not {name!r}")
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
        raise InputError(f"{where}: {key} must be a text, not {type(value).__name__}")
    return value


def _content_id(question: str, options: Sequence[str]) -> str:
    """The id of a row without one: a hash of its content, so that two runs agree on it."""
    return hashlib.blake2b("\0".join([question, *options]).encode(), digest_size=8).hexdigest()


def subset(questions: Sequence[Question], limit: int | None, seed: int) -> list[Question]:
    """`limit` questions determined by seed and ids, in the order of the set; all if the limit is None or larger.

    The questions with the `limit` smallest keyed hashes of their ids: the choice depends neither on the order nor the
    number of rows, and a smaller limit gives a subset of a larger one's.
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
    """Accuracies without a model."""

    random: float
    """Expected accuracy of guessing: mean of 1 / number of options."""
    majority: float
    """Accuracy of the most frequent answer, see `baselines`."""


def baselines(questions: Sequence[Question]) -> Baselines:
    """Random and majority accuracy on exactly these questions.

    The majority baseline is the better of two constant answers: always the most frequent *position* (a bias of
    four-option sets), and always the most frequent *text*, if it is among the options (a bias of yes/no/maybe sets,
    even if the order of options varies). Texts are compared case-folded.
    """
    positions = Counter(q.answer for q in questions)
    texts = Counter(q.options[q.answer].casefold() for q in questions)
    best = max(max(positions.values()), max(texts.values()))
    return Baselines(sum(1 / len(q.options) for q in questions) / len(questions), best / len(questions))


def question_sets(location: str | os.PathLike[str]) -> dict[str, str]:
    """Question sets in a folder and its subfolders, or in one file: name -> path or URL, sorted by name.

    The name of a set is its file's without `.jsonl` or `.jsonl.gz`. Sets ending in `_train` are included, for
    decontamination; `scored_sets` excludes them.

    Args:
        location: local path or any fsspec URL.

    Raises:
        InputError: the location does not exist or has no sets, or two sets have one name.
        ConfigError: an invalid name of a set.
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
            raise InputError(f"{found[name]} and {path} are both named {name!r}; rename one of them")
        found[name] = path
    return dict(sorted(found.items()))


def scored_sets(names: Iterable[str]) -> list[str]:
    """The sets that are scored: all except those ending in `_train`."""
    return [name for name in names if not name.endswith(TRAIN_SUFFIX)]
