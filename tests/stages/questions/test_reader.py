"""Public sets are read as they are published; what is ambiguous is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from stages.corpus import list_files
from stages.corpus.evaluation_items import read_items
from stages.evaluation.sets import read_set
from stages.questions import read_rows
from stages.store import InputError
from tests.stages.evaluation.evaluation_world import write_set

TWO = ["kidney", "liver"]
Q = {"question": "Which organ?"}

PUBLIC: dict[str, tuple[dict[str, Any], str]] = {
    "own": (
        {**Q, "options": TWO, "answer": 1, "label": 0},
        "answers are integers from 0 in field answer; no answer is 0",
    ),
    "letters": ({**Q, "options": TWO, "answer": "B"}, "answers are letters A-B in field answer"),
    "mmlu": (
        {**Q, "choices": TWO, "answer": 1},
        "options are in field choices; answers are integers from 0 in field answer; no answer is 0",
    ),
    "mmlu_pro": (
        {**Q, "options": TWO, "answer": "B", "answer_index": 1},
        "answers are letters A-B in field answer",
    ),
    "medqa": (
        {**Q, "options": {"A": "kidney", "B": "liver"}, "answer": "liver", "answer_idx": "B"},
        "options are in field options, with labels; answers are the options' texts in field answer",
    ),
    "medmcqa": (
        {**Q, "opa": "kidney", "opb": "liver", "cop": 2},
        "options are in fields opa to opb; answers are integers from 1 in field cop",
    ),
    "arc": (
        {**Q, "choices": {"text": TWO, "label": ["1", "2"]}, "answerKey": "2"},
        "options are in field choices, with labels; answers are labels in field answerKey",
    ),
    "openbookqa": (
        {"question_stem": "Which organ?", "choices": {"text": TWO, "label": ["A", "B"]}, "answerKey": "B"},
        "questions are in field question_stem; options are in field choices, with labels; answers are labels in field "
        "answerKey",
    ),
    "gold": (
        {**Q, "choices": TWO, "gold": 1},
        "options are in field choices; answers are integers from 0 in field gold; no answer is 0",
    ),
    "correct": ({**Q, "options": TWO, "correct": "liver"}, "answers are the options' texts in field correct"),
}


@pytest.mark.parametrize("name", PUBLIC)
def test_public_sets_are_read_alike_for_scoring_and_decontamination(tmp_path: Path, name: str) -> None:
    row, spelling = PUBLIC[name]
    listing = write_set(tmp_path / f"{name}.jsonl", [row])
    found = read_set(listing)
    (question,) = found.questions
    assert (question.question, question.options, question.answer) == ("Which organ?", tuple(TWO), 1)
    assert found.spelling == spelling
    assert [item.asked for item in read_items({name: listing})] == ["Which organ?\nliver"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"text": "Which?"}], r":1: no field 'question'; the fields are: text"),
        ([Q, {"query": "Which?"}], r":2: no field 'question'; the fields are: query"),
        ([{"question": 3}], r":1: question must be a text, not int"),
        ([{**Q, "options": [1, 2], "answer": 0}], r":1: options: an option must be a text, not a number"),
        ([{**Q, "options": TWO, "answer": "Both", "answerKey": "B"}], r":1: .*if 'answerKey' is the answer, remove or"),
        ([{**Q, "options": TWO, "answer": "A", "label": 1}], r":1: 'answer' and 'label' name different options"),
    ],
)
def test_what_no_row_says_clearly_is_refused(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=rf"exam\.jsonl{message}"):
        read_rows(write_set(tmp_path / "exam.jsonl", rows))


def test_questions_without_options_or_answers_are_for_decontamination_only(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [Q, {**Q, "answer": "the liver", "options": []}, {**Q, "options": TWO, "answer": ""}]
    listing = write_set(tmp_path / "exam.jsonl", rows)
    assert [(row.answer, row.answer_text) for row in read_rows(listing).rows] == [
        (None, ""),
        (None, "the liver"),
        (None, ""),
    ]
    with pytest.raises(InputError, match=r"exam\.jsonl:1: options, answer missing"):
        read_set(listing)


def test_integers_that_never_reach_0_are_said(tmp_path: Path) -> None:
    """They may count from 1."""
    rows = [{**Q, "options": [*TWO, "heart", "lung"], "answer": 1 + number % 3} for number in range(40)]
    late = "answers are integers from 0 in field answer; no answer is 0"
    assert read_rows(write_set(tmp_path / "exam.jsonl", rows)).spelling == late
    assert read_rows(write_set(tmp_path / "exam.jsonl", [*rows, {**rows[0], "answer": 0}])).spelling == ""


def test_names_are_printed_on_one_line(tmp_path: Path) -> None:
    write_set(tmp_path / "a\nb.jsonl", [{**Q, "options": TWO, "answer": 7}])
    (tmp_path / "c\nd.txt").touch()
    with pytest.raises(InputError) as refused:
        read_rows(list_files(tmp_path))
    assert str(refused.value).isprintable()
    write_set(tmp_path / "a\nb.jsonl", [{**Q, "options": TWO, "answer": 0}])
    assert read_rows(list_files(tmp_path)).left_out == ("c\\nd.txt",)
    (tmp_path / "a\nb.jsonl").write_text("")
    with pytest.raises(InputError) as refused:
        read_rows(list_files(tmp_path))
    assert str(refused.value).isprintable()


def test_files_of_a_folder_that_are_no_json_lines_are_named(tmp_path: Path) -> None:
    write_set(tmp_path / "exam.jsonl", [{**Q, "options": TWO, "answer": 0}])
    (tmp_path / "README.md").write_text("about it")
    assert read_rows(list_files(tmp_path)).left_out == ("README.md",)
