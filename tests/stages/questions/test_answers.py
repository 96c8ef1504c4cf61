"""Answers are read in the one way that fits the whole set, or refused."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.questions.answers import Choice, UnreadableAnswerError, read_answers
from stages.questions.options import Options

FOUR = Options(("kidney", "liver", "heart", "lung"))
LABELLED = Options(FOUR.texts, ("A", "B", "C", "D"))
CASED = Options(FOUR.texts, ("A", "a", "B", "b"))
NUMBERED = Options(FOUR.texts, ("1", "2", "3", "4"))


def choices(values: Sequence[Any], options: Options = FOUR) -> list[Choice]:
    return [(value, options) for value in values]


@pytest.mark.parametrize(
    ("field", "values", "options", "way", "indexes"),
    [
        ("answer", [0, 3], FOUR, "integers from 0", [0, 3]),
        ("answer", ["A", "d"], FOUR, "letters", [0, 3]),
        ("answer", ["(A)", "B.", "c)", "D:", " a "], FOUR, "letters", [0, 1, 2, 3, 0]),
        ("answer", ["0", "2"], FOUR, "numbers from 0", [0, 2]),
        ("answer", ["2", "4"], FOUR, "numbers from 1", [1, 3]),
        ("answer", ["liver", " lung "], FOUR, "the options' texts", [1, 3]),
        ("answer", ["cafe\u0301"], Options(("tea", "caf\u00e9")), "the options' texts", [1]),
        ("answer", ["b"], Options(("a", "b")), "letters", [1]),
        ("answer", ["A", "D"], LABELLED, "labels", [0, 3]),
        ("answer", ["A", "a", " b"], CASED, "labels", [0, 1, 3]),
        ("answer", ["e\u0301"], Options(("x", "y"), ("a", "\u00e9")), "labels", [1]),
        ("answer", ["0000000001", "0"], FOUR, "numbers from 0", [1, 0]),
        ("answer", ["(b)"], LABELLED, "labels", [1]),
        ("answer", ["A"], Options(("x", "y"), ("B", "A")), "labels", [1]),
        ("answer", ["1", "3"], NUMBERED, "labels", [0, 2]),
        ("answer", [1, 4], NUMBERED, "labels", [0, 3]),
        ("answer", [0, 3], LABELLED, "integers from 0", [0, 3]),
        ("answer", ["B", 2], FOUR, "integers from 0 and letters", [1, 2]),
        ("cop", [0, 3], FOUR, "integers from 0", [0, 3]),
        ("cop", [1, 4], FOUR, "integers from 1", [0, 3]),
    ],
)
def test_the_way_that_fits_all_rows(
    field: str, values: list[Any], options: Options, way: str, indexes: list[int]
) -> None:
    found = read_answers(field, choices(values, options))
    assert (found.way, found.indexes) == (way, indexes)


@pytest.mark.parametrize(
    ("field", "values", "row", "message"),
    [
        ("answer", [0, 4], 1, r"answer 4 is not one of the 4 options; .* subtract 1"),
        ("answer", [1, -1], 1, "answer -1 is not one of the 4 options"),
        ("answer", [True], 0, "answer true is not"),
        ("answer", [1.0], 0, "answer 1.0 is not"),
        ("answer", [["A"]], 0, r'answer \["A"\] is not'),
        ("answer", ["A", "E"], 1, 'answer "E" is not one of the 4 options'),
        ("answer", ["liver", "brain"], 1, 'answer "brain" is not'),
        ("answer", ["²"], 0, 'answer "²" is not'),
        ("answer", ["x" * 999], 0, r'answer "x{59}\.\.\. is not'),
        ("answer", ["2"], 0, 'answer "2" names different options as numbers from 0 and as numbers from 1'),
        ("answer", ["00000000012"], 0, 'answer "00000000012" is not'),
        ("answer", ["1" * 5000], 0, "answer .* is not"),
        ("answer", ["0", "4"], 1, 'answer "4" is not'),
        ("cop", [1, 3], 0, "cop 1 names different options as integers from 0 and as integers from 1"),
        ("cop", [0, 4], 1, "cop 4 is not"),
    ],
)
def test_what_names_no_option_or_two_is_refused(field: str, values: list[Any], row: int, message: str) -> None:
    with pytest.raises(UnreadableAnswerError, match=message) as error:
        read_answers(field, choices(values))
    assert error.value.row == row


@pytest.mark.parametrize("answers", [["(A)"], ["A", "(B)"]])
def test_a_letter_of_several_labels_is_refused(answers: list[str]) -> None:
    with pytest.raises(UnreadableAnswerError, match=r'"\([AB]\)" is the letter of several labels; write the label'):
        read_answers("answer", choices(answers, CASED))


def test_an_option_that_is_the_letter_of_another_is_refused() -> None:
    with pytest.raises(UnreadableAnswerError, match="as letters and as the options' texts"):
        read_answers("answer", choices(["A"], Options(("B", "A"))))


@given(st.lists(st.integers(0, 3), min_size=1, max_size=8), st.sampled_from(["letter", "zero", "one", "text"]))
def test_a_written_answer_is_read_back_or_refused(indexes: list[int], way: str) -> None:
    write = {"letter": "ABCD".__getitem__, "zero": str, "one": lambda i: str(i + 1), "text": FOUR.texts.__getitem__}
    try:
        found = read_answers("answer", choices([write[way](index) for index in indexes]))
    except UnreadableAnswerError:
        assert way in ("zero", "one") and not {0: 0 in indexes, 1: 3 in indexes}[way == "one"]
    else:
        assert found.indexes == indexes
