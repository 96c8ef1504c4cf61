"""Bad question sets end a run before it begins, whoever names them; what was understood is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from flows.inputs import resolve_recipe
from flows.question_sets import check_question_sets
from stages.store import ConfigError, InputError
from tests.flows.test_steps import World, question, text

GOOD = {"question": "Which organ?", "options": ["kidney", "liver"], "answer": 1}


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def line(**changes: Any) -> str:
    return json.dumps({**GOOD, **changes}) + "\n"


def test_each_set_is_read_once_and_described(world: World) -> None:
    world.write("sets/exam.jsonl", line(answer="A") + line(options=["heart", "lung"], answer="B"))
    world.write("folder/other.jsonl", line(answer=0))
    world.write("folder/README.md", "about it")
    world.write("sets/past_train.jsonl", json.dumps({"question": "Why?"}) + "\n")
    world.settings["evaluation_sets"] |= {
        "other": world.path("folder"),
        "past_train": world.path("sets/past_train.jsonl"),
    }
    assert check_question_sets(world.recipe()) == [
        "question set exam: 2 questions; answers are letters A-B in field answer",
        "question set other: 1 questions; not read, since not JSON Lines: README.md (1 files)",
        "question set past_train: 1 questions, not scored",
    ]


BAD = [
    ("sets/exam.jsonl", line(answer=2), r"question set exam: .*exam\.jsonl:1: answer 2 is not one of the 2 options"),
    ("sets/other.jsonl", line() + line(), r"question set other: .*other\.jsonl:2: the same question"),
    ("sets/other.jsonl", line(options=["kidney", "kidney"]), r"question set other: .*other\.jsonl:1: two options are"),
    ("sets/other.jsonl", "", r"question set other: .*other\.jsonl: no questions"),
]


@pytest.mark.parametrize(("file", "content", "message"), BAD)
def test_a_bad_set_of_a_recipe_is_refused_with_the_recipe(world: World, file: str, content: str, message: str) -> None:
    world.write(file, content)
    world.recipe()
    with pytest.raises(InputError, match=message):
        resolve_recipe(str(world.folder / "mine.yaml"))


def test_a_bad_set_of_the_user_is_refused_with_the_parameter(tmp_path: Path) -> None:
    for name, content in (("data/a/1.txt", text("a")), ("eval/exam.jsonl", question("exam")), ("eval/x.jsonl", "{}")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    places = str(tmp_path / "data"), str(tmp_path / "eval")
    with pytest.raises(InputError, match=r"^evaluation_data: question set x: .*x\.jsonl:1: no field 'question'"):
        resolve_recipe("biomed", *places)
    (tmp_path / "eval" / "x.jsonl").unlink()
    (tmp_path / "eval" / "my x.v1.jsonl").write_text(
        line() + line(options=["heart", "heart"]) + line(options=["heart", "lung"], answer=0)
    )
    (tmp_path / "eval" / "exam.json").write_text("[]")
    with pytest.raises(InputError, match=r"my x\.v1\.jsonl:2: two options are equal") as refused:
        resolve_recipe("biomed", *places)
    advice = str(refused.value).rpartition(" ")[2]
    assert advice == "evaluation.sets.my-x-v1.equal_options=leave_out"
    recipe, notes = resolve_recipe("biomed", *places, [advice])
    assert recipe.evaluation.options("my-x-v1").equal_options == "leave_out"
    assert f"question set my-x-v1: 2 questions; 1 left out, with equal options: {places[1]}/my x.v1.jsonl:2" in notes
    assert f"not read in {places[1]}: not JSON Lines: 1 (exam.json)" in notes


def test_a_set_to_decontaminate_against_is_read_too(world: World) -> None:
    world.write("sets/past.jsonl", line(answer=True))
    world.settings["corpus"]["decontamination"]["sets"]["past"] = world.path("sets/past.jsonl")
    with pytest.raises(InputError, match=r"question set past: .*past\.jsonl:1: answer true"):
        check_question_sets(world.recipe())
    # Another file of the same name as a scored set.
    world.settings["corpus"]["decontamination"]["sets"] = {"other": world.path("sets/past.jsonl")}
    with pytest.raises(InputError, match=r"question set other: .*past\.jsonl:1: answer true"):
        check_question_sets(world.recipe())


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("evaluation.sets.fuor.limit=3", "evaluation.sets: no scored set is named fuor; scored sets: exam, other"),
        ("gate.must_beat_baselines=[fuor]", "gate.must_beat_baselines: no scored set is named fuor"),
        ("evaluation_sets.two words=/x.jsonl", "'two words': a name may contain only"),
    ],
)
def test_a_setting_for_a_set_that_is_not_scored_is_refused(world: World, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_question_sets(world.recipe(override))


def test_the_sets_of_the_sample_are_not_there_yet() -> None:
    assert resolve_recipe("biomed")[1] == []
