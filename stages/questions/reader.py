"""Reads a whole question set: which fields hold question, options and answer, and what each row says.

A row as this project writes it is `{"id", "question", "options": [...], "answer": index, "context"?, "subject"?}`; the
spellings of common public sets are understood too (`options.py`, `answers.py`). What a set must have to be scored is
checked by `stages.evaluation.sets`; decontamination also takes questions without options.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.corpus.reading.listing import Listing
from stages.corpus.reading.unread import printable_name
from stages.questions.answers import ANSWER_FIELDS, INTEGERS, LETTERS, Answers, UnreadableAnswerError, read_answers
from stages.questions.files import Line, read_lines, set_name
from stages.questions.options import OPTION_COLUMNS, OPTION_FIELDS, Options, option_field, read_options
from stages.store import InputError

QUESTION_FIELDS = ("question", "question_stem", "stem", "query")
OWN_FORM = (ANSWER_FIELDS[0], INTEGERS)
"""Field and form of the answers in this project's own sets."""


@dataclass(frozen=True)
class Row:
    """What one line of a set says."""

    where: str
    """`path:line`, the prefix of errors."""
    number: int
    """Of its line in the file, from 1."""
    line: bytes
    """As in the file, without the line end."""
    question: str
    options: tuple[str, ...]
    """As in the file; empty if it has none."""
    answer: int | None
    """Index of the right option; None if the row does not say."""
    answer_text: str
    """The right option, or the text of `answer` if there are no options; may be empty."""
    fields: Mapping[str, Any]
    """All fields of the line."""


@dataclass(frozen=True)
class QuestionSet:
    """All rows of a set, at least one."""

    rows: tuple[Row, ...]
    spelling: str
    """What was understood other than this project's own fields, for the user: `answers are letters A-D in field
    answerKey`; or that no integer of its answers is 0, as where they count from 1. Empty if nothing was."""
    left_out: tuple[str, ...]
    """Files of the listing that are not JSON Lines, by printable names."""
    answer_field: str
    option_field: str


def read_rows(listing: Listing) -> QuestionSet:
    """Reads all rows of a set.

    Raises:
        InputError: with file and line: a line that is not a JSON object, no question, options in no known form, or an
            answer that does not name one option; or a set without rows.
    """
    lines = list(read_lines(listing))
    if not lines:
        names = ", ".join(printable_name(listing.path(file.name)) for file in listing.files)
        raise InputError(f"{names}: no questions; a set is JSON Lines, one question per line")
    questions, question_field = _questions(lines)
    options, options_in = _options(lines)
    chosen, answers, answer_field = _answers(lines, options)
    rows = tuple(
        Row(
            line.where,
            line.number,
            line.content,
            question,
            () if found is None else found.texts,
            answer,
            _answer_text(line.fields, found, answer),
            line.fields,
        )
        for line, question, found, answer in zip(lines, questions, options, chosen, strict=True)
    )
    spelling = [
        f"questions are in field {question_field}" if question_field != QUESTION_FIELDS[0] else "",
        _options_spelling(options_in, options),
        _answers_spelling(answer_field, answers, options),
    ]
    left_out = tuple(printable_name(file.name) for file in listing.files if set_name(file.name) is None)
    return QuestionSet(rows, "; ".join(filter(None, spelling)), left_out, answer_field, options_in)


def field_names(fields: Mapping[str, Any]) -> str:
    """The names of a row's fields, for an error."""
    return ", ".join(printable_name(name) for name in sorted(fields)) or "none"


def _questions(lines: Sequence[Line]) -> tuple[list[str], str]:
    """The text of each question, and their field."""
    field = next((n for n in QUESTION_FIELDS if any(n in line.fields for line in lines)), QUESTION_FIELDS[0])
    for line in lines:
        if field not in line.fields:
            raise InputError(f"{line.where}: no field {field!r}; the fields are: {field_names(line.fields)}")
        if not isinstance(line.fields[field], str):
            raise InputError(f"{line.where}: {field} must be a text, not {type(line.fields[field]).__name__}")
    return [line.fields[field] for line in lines], field


def _options(lines: Sequence[Line]) -> tuple[list[Options | None], str]:
    """The options of each row, None without, and their field."""
    field = option_field([line.fields for line in lines]) or OPTION_FIELDS[0]
    found: list[Options | None] = []
    for line in lines:
        try:
            found.append(read_options(line.fields, field) if line.fields.get(field) else None)
        except ValueError as error:
            raise InputError(f"{line.where}: {error}") from error
    return found, field


def _answers(lines: Sequence[Line], options: Sequence[Options | None]) -> tuple[list[int | None], Answers | None, str]:
    """The right option of each row, None where a row has no options or no answer; how they are written; their field.

    Raises:
        InputError: an answer names no option, or two fields name different ones. Integers in `answer` are this
            project's own form, so other fields beside them are not compared.
    """
    present = [name for name in ANSWER_FIELDS if any(name in line.fields for line in lines)]
    field = present[0] if present else ANSWER_FIELDS[0]
    chosen: list[int | None] = [None] * len(lines)
    answered = [row for row, line in enumerate(lines) if options[row] is not None and _given(line.fields, field)]
    if not answered:
        return chosen, None, field
    answers = _read(field, answered, lines, options)
    for row, index in zip(answered, answers.indexes, strict=True):
        chosen[row] = index
    if (field, answers.way) != OWN_FORM:
        for other in present[1:]:
            _compare(field, other, chosen, answered, lines, options)
    return chosen, answers, field


def _given(fields: Mapping[str, Any], name: str) -> bool:
    """Whether a row has an answer: test sets leave it out, null or empty."""
    return fields.get(name) not in (None, "")


def _read(field: str, rows: Sequence[int], lines: Sequence[Line], options: Sequence[Options | None]) -> Answers:
    try:
        return read_answers(field, [(lines[row].fields[field], options[row] or Options(())) for row in rows])
    except UnreadableAnswerError as error:
        line = lines[rows[error.row]]
        others = [name for name in ANSWER_FIELDS if name in line.fields and name != field]
        hint = f"; if {others[0]!r} is the answer, remove or rename {field!r}" if others else ""
        raise InputError(f"{line.where}: {error}{hint}") from error


def _compare(
    field: str,
    other: str,
    chosen: Sequence[int | None],
    answered: Sequence[int],
    lines: Sequence[Line],
    options: Sequence[Options | None],
) -> None:
    """Refuses a set in which another field names other options; one that does not read as answers is something else."""
    if not all(_given(lines[row].fields, other) for row in answered):
        return
    try:
        indexes = read_answers(other, [(lines[row].fields[other], options[row] or Options(())) for row in answered])
    except UnreadableAnswerError:
        return
    for row, index in zip(answered, indexes.indexes, strict=True):
        if index != chosen[row]:
            raise InputError(
                f"{lines[row].where}: {field!r} and {other!r} name different options; remove the one that is no answer"
            )


def _answer_text(fields: Mapping[str, Any], options: Options | None, answer: int | None) -> str:
    if options is not None:
        return "" if answer is None else options.texts[answer]
    text = fields.get(ANSWER_FIELDS[0])
    return text if isinstance(text, str) else ""


def _options_spelling(field: str, options: Sequence[Options | None]) -> str:
    if field == OPTION_COLUMNS[0]:
        most = max(len(each.texts) for each in options if each is not None)
        return f"options are in fields {OPTION_COLUMNS[0]} to {OPTION_COLUMNS[most - 1]}"
    labels = ", with labels" if any(each is not None and each.labels for each in options) else ""
    return f"options are in field {field}{labels}" if field != OPTION_FIELDS[0] or labels else ""


def _answers_spelling(field: str, answers: Answers | None, options: Sequence[Options | None]) -> str:
    if answers is None:
        return ""
    starts_late = INTEGERS in answers.way and 0 not in answers.indexes  # as where a set counts from 1
    if (field, answers.way) == OWN_FORM and not starts_late:
        return ""
    most = max(len(each.texts) for each in options if each is not None)
    letters = f" A-{LETTERS[min(most, len(LETTERS)) - 1]}" if "letters" in answers.way else ""
    return f"answers are {answers.way}{letters} in field {field}" + ("; no answer is 0" if starts_late else "")
