"""Which option an answer names: answers are read in the one way that fits all rows of a set.

The ways are a label of the options, a letter, a number from 0 or from 1, and the option's text. A set that several ways
fit is refused, unless they agree in every row. Integers count from 0, as in all public sets but MedMCQA, whose field
`cop` counts from 0 or from 1 depending on the copy; there, and where numbers are written as texts, an answer 0 shows
the one and an answer equal to the number of options the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from stages.questions.options import Options, plain

ANSWER_FIELDS = (
    "answer",
    "answer_idx",
    "answer_index",
    "answerKey",
    "answer_key",
    "correct_answer",
    "correct_option",
    "correct",
    "gold",
    "label",
    "target",
    "cop",
)
"""Names that public sets give the answer; the first that a set has is read."""
COUNTED_FROM_EITHER = "cop"

LABELS, INTEGERS = "labels", "integers from 0"

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
_LETTER = re.compile(r"\(?([A-Za-z])[).:]?")
_NUMBER = re.compile(r"0*([0-9]{1,9})")
_SHOWN = 60
"""Characters of an answer in an error."""

Choice = tuple[Any, Options]
"""An answer as in the file, and the options that it chooses from."""
Way = Callable[[Any, Options], int | None]
"""Gives the index of the option that an answer names; None if it names none in this way."""


@dataclass(frozen=True)
class Answers:
    """The answers of a set."""

    way: str
    """How they are written: `letters`, `labels`, `integers from 0`, ..."""
    indexes: list[int]


class UnreadableAnswerError(ValueError):
    """An answer that names no option, or several: `row` is its index among those given."""

    def __init__(self, row: int, message: str):
        super().__init__(message)
        self.row = row


def read_answers(field: str, choices: Sequence[Choice]) -> Answers:
    """Reads the answers of a set: all its integers in one way, and all its texts in one way.

    Args:
        field: where they stand, for the rule of `cop` and for errors.

    Raises:
        UnreadableAnswerError: no way fits every row, or ways that fit disagree about a row.
    """
    integers = [row for row, (value, _) in enumerate(choices) if type(value) is int]
    texts = [row for row, (value, _) in enumerate(choices) if type(value) is not int]
    names, indexes = [], [0] * len(choices)
    for rows, ways in ((integers, _COP_WAYS if field == COUNTED_FROM_EITHER else _INTEGER_WAYS), (texts, _TEXT_WAYS)):
        if rows:
            name, found = _read_in_one_way(field, rows, choices, ways)
            names.append(name)
            for row, index in zip(rows, found, strict=True):
                indexes[row] = index
    return Answers(" and ".join(names), indexes)


def _read_in_one_way(
    field: str, rows: Sequence[int], choices: Sequence[Choice], ways: Mapping[str, Way]
) -> tuple[str, list[int]]:
    """The way that fits the answers of these rows, and their indexes.

    A label is what the set itself calls an option, so where labels fit, no other way is asked.
    """
    found = {name: [read(*choices[row]) for row in rows] for name, read in ways.items()}
    fitting = {name: [i for i in indexes if i is not None] for name, indexes in found.items() if None not in indexes}
    if not fitting:
        nearest = max(found.values(), key=lambda indexes: len(rows) - indexes.count(None))
        row = rows[nearest.index(None)]
        raise UnreadableAnswerError(row, _unreadable(field, *choices[row]))
    name, indexes = next(iter(fitting.items()))
    for other, differing in fitting.items():
        if name != LABELS and differing != indexes:
            row = next(row for row, one, two in zip(rows, indexes, differing, strict=True) if one != two)
            raise UnreadableAnswerError(
                row,
                f"{field} {_shown(choices[row][0])} names different options as {name} and as {other}, and both fit all "
                "rows of the set; write answers as integers from 0",
            )
    return name, indexes


def _by_label(value: Any, options: Options) -> int | None:
    text = str(value) if type(value) is int else value
    if not isinstance(text, str):
        return None
    for form in (plain, _letter):
        named = _labels_alike(text, options, form)
        if len(named) == 1:
            return named[0]
    return None


def _by_letter(value: Any, options: Options) -> int | None:
    if not isinstance(value, str) or _is_letter_of_several(value, options):
        return None
    letter = _letter(value)
    index = LETTERS.find(letter) if letter else -1
    return index if 0 <= index < len(options.texts) else None


def _labels_alike(text: str, options: Options, form: Callable[[str], str]) -> list[int]:
    """The options whose labels have the same form as a text, which is not empty."""
    wanted = form(text)
    return [index for index, label in enumerate(options.labels) if wanted and form(label) == wanted]


def _is_letter_of_several(value: Any, options: Options) -> bool:
    """Whether an answer is no label as it is written, and a letter that several labels have: (A), of A and a."""
    if not isinstance(value, str) or _labels_alike(value, options, plain):
        return False
    return len(_labels_alike(value, options, _letter)) > 1


def _letter(text: str) -> str:
    """`B` for B, b, (B), B. and B:; empty for all else."""
    match = _LETTER.fullmatch(text.strip())
    return match[1].upper() if match else ""


def _by_number(first: int) -> Way:
    def read(value: Any, options: Options) -> int | None:
        if isinstance(value, str) and (number := _NUMBER.fullmatch(value.strip())):
            value = int(number[1])
        return value - first if type(value) is int and first <= value < first + len(options.texts) else None

    return read


def _by_text(value: Any, options: Options) -> int | None:
    texts = [plain(text) for text in options.texts]
    return texts.index(plain(value)) if isinstance(value, str) and plain(value) in texts else None


_INTEGER_WAYS: dict[str, Way] = {LABELS: _by_label, INTEGERS: _by_number(0)}
_COP_WAYS: dict[str, Way] = {LABELS: _by_label, INTEGERS: _by_number(0), "integers from 1": _by_number(1)}
_TEXT_WAYS: dict[str, Way] = {
    LABELS: _by_label,
    "letters": _by_letter,
    "numbers from 0": _by_number(0),
    "numbers from 1": _by_number(1),
    "the options' texts": _by_text,
}


def _unreadable(field: str, value: Any, options: Options) -> str:
    if _is_letter_of_several(value, options):
        return f"{field} {_shown(value)} is the letter of several labels; write the label as in the options"
    count = len(options.texts)
    message = (
        f"{field} {_shown(value)} is not one of the {count} options; must be an index (integer from 0 to {count - 1}), "
        "a letter or label, or the text of an option"
    )
    return f"{message}; if the set counts from 1, subtract 1 from all" if value == count else message


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
