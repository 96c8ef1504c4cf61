"""Question sets for scoring: which questions can be scored, choosing a subset, and baselines without a model.

What a row says is read by `stages.questions`, for decontamination too.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.corpus import Listing, list_files
from stages.corpus.reading.names import make_name
from stages.corpus.reading.unread import Unread, describe_unread, printable_name
from stages.evaluation.config import TRAIN_SUFFIX, EqualOptions, is_training_split
from stages.questions import SUFFIXES, QuestionSet, Row, array_hint, field_names, plain, read_rows, set_name
from stages.store import InputError

ROLE = "set/"
"""Prefix of the roles of question sets among the stage's inputs."""

MAX_OPTIONS = 26
NAME_CHARACTERS = 100
"""Most characters of a set's name, without the ending of a training split; it is part of file names and metrics."""
SHOWN_PLACES = 20
"""Most places that one message names."""


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


@dataclass(frozen=True)
class ScoredSet:
    """The questions of a set that can be scored, in order."""

    questions: list[Question]
    spelling: str
    """See `QuestionSet.spelling`."""
    left_out: tuple[str, ...]
    """Places (`path:line`) of questions with equal options."""
    other_files: tuple[str, ...]
    """Files of the listing that are not JSON Lines."""


def read_set(listing: Listing, equal_options: EqualOptions = "refuse", name: str = "NAME") -> ScoredSet:
    """All questions of a set's files.

    Args:
        equal_options: whether questions with two equal options are an error or left out. The second of the two can
            never be the prediction, so such a question may have no right one.
        name: of the set, for an error that names its settings.

    Raises:
        InputError: with file and line: a row that `read_rows` refuses, that cannot be scored, or whose id repeats; or
            a set without questions.
    """
    found = read_rows(listing)
    questions: list[Question] = []
    equal: list[str] = []
    first_place: dict[str, str] = {}
    for row in found.rows:
        question = _question(row, found)
        if question.id in first_place:
            what = "duplicate id" if row.fields.get("id") is not None else "the same question and options: id"
            raise InputError(
                f"{row.where}: {what} {question.id!r}, first at {first_place[question.id]}; the gate pairs answers "
                "by id, so every question needs a unique one"
            )
        first_place[question.id] = row.where
        if len({plain(option) for option in question.options}) < len(question.options):
            equal.append(row.where)
        else:
            questions.append(question)
    if equal and equal_options == "refuse":
        raise InputError(
            f"{equal[0]}: two options are equal, and the second can never be predicted; the same in {len(equal)} of "
            f"{len(found.rows)} questions: {places(equal)}. Correct them, or leave them out: set "
            f"evaluation.sets.{name}.equal_options=leave_out"
        )
    if not questions:
        place = printable_name(listing.location)
        raise InputError(f"{place}: every question has two equal options, so none can be scored")
    return ScoredSet(questions, found.spelling, tuple(equal), found.left_out)


def places(where: Sequence[str]) -> str:
    """The places for a message, at most `SHOWN_PLACES` of them, a path once: `/a/exam.jsonl:3, 7 and 2 more`."""
    parts: list[str] = []
    last = ""
    for place in where[:SHOWN_PLACES]:
        path, _, line = place.rpartition(":")
        parts.append(line if path == last else place)
        last = path
    more = f" and {len(where) - SHOWN_PLACES} more" if len(where) > SHOWN_PLACES else ""
    return ", ".join(parts) + more


def _question(row: Row, found: QuestionSet) -> Question:
    """The question of one row.

    Raises:
        InputError: it cannot be scored.
    """
    where, fields = row.where, row.fields
    missing = [name for name in (found.option_field, found.answer_field) if fields.get(name) in (None, "")]
    if missing:
        raise InputError(
            f"{where}: {', '.join(missing)} missing; a question has id, question, options, answer; the "
            f"fields are: {field_names(fields)}"
        )
    options = tuple(option.strip() for option in row.options)
    if not all(options):
        raise InputError(f"{where}: option {options.index('') + 1} is empty; options must be non-empty texts")
    if not 2 <= len(options) <= MAX_OPTIONS:
        raise InputError(f"{where}: {len(options)} options; must be 2 to {MAX_OPTIONS}")
    assert row.answer is not None
    text = row.question.strip()
    if not text:
        raise InputError(f"{where}: question is empty")
    name = fields.get("id")
    if isinstance(name, bool) or not isinstance(name, str | int | None):
        raise InputError(f"{where}: id must be a text or an integer, not {name!r}")
    return Question(
        id=_content_id(text, row.options) if name is None else str(name),
        question=text,
        options=options,
        answer=row.answer,
        context=_text(fields, "context", where).strip(),
        subject=_text(fields, "subject", where).strip(),
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


@dataclass(frozen=True)
class FoundSets:
    """The question sets of a folder."""

    paths: dict[str, str]
    """Path or URL by name, sorted by name."""
    unread: tuple[Unread, ...]
    """What else is in the folder."""


def find_sets(location: str | os.PathLike[str]) -> FoundSets:
    """Question sets in a folder and its subfolders, or in one file.

    The name of a set is made from its file's without suffix (`stages.questions.SUFFIXES`): `Prüfung A.jsonl` is
    `Prufung-A`. It has no full stop, which separates the keys of a setting. Sets ending in `_train` are included, for
    decontamination; `scored_sets` excludes them.

    Args:
        location: local path or any fsspec URL.

    Raises:
        InputError: the location does not exist or has no sets, or two sets have one name.
    """
    listing = list_files(location, why_unread=_why_unread)
    if not listing.files:
        others = "; ".join(describe_unread(listing.unread))
        hint = array_hint(name for one in listing.unread for name in one.names)
        place = printable_name(os.fspath(location))
        raise InputError(f"{place} has no question set ({', '.join(SUFFIXES)}); not read: {others}{hint}")
    found: dict[str, str] = {}
    # By case-folded name: results are files named by set, and some file systems do not distinguish case.
    names: dict[str, str] = {}
    for file in listing.files:
        path, name = listing.path(file.name), _made_name(file.name)
        same = names.setdefault(name.casefold(), name)
        if same in found:
            both = f"{printable_name(found[same])} and {printable_name(path)}"
            raise InputError(f"{both} are both named {same!r}; rename one of them")
        found[name] = path
    return FoundSets(dict(sorted(found.items())), listing.unread)


def _made_name(file: str) -> str:
    """The name that a set gets by its file's; one of a training split ends as the file's does."""
    stem = set_name(file) or ""
    base = stem[: -len(TRAIN_SUFFIX)] if is_training_split(stem) else stem
    return make_name(base, "set", "_-", "-", NAME_CHARACTERS).lstrip("_-") + stem[len(base) :]


def _why_unread(file: str) -> str:
    return "not JSON Lines" if set_name(file) is None else ""


def question_sets(location: str | os.PathLike[str]) -> dict[str, str]:
    """The paths of `find_sets`."""
    return find_sets(location).paths


def scored_sets(names: Iterable[str]) -> list[str]:
    """The sets that are scored: all except those ending in `_train`, in any case."""
    return [name for name in names if not is_training_split(name)]
