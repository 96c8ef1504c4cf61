from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.evaluation_items import read_items
from stages.corpus.reading.listing import ListedFile, Listing, list_files
from stages.evaluation import sets
from stages.evaluation.config import EvaluationConfig, check_name
from stages.evaluation.sets import Question, baselines, find_sets, question_sets, read_set, scored_sets, subset
from stages.store import InputError
from tests.stages.evaluation.evaluation_world import make_questions, write_set
from tests.support import SHARED, ObjectStore

GOOD = {"id": "a", "question": "Which?", "options": ["x", "y"], "answer": 1}


def changed(**fields: Any) -> bytes:
    return json.dumps({key: value for key, value in {**GOOD, **fields}.items() if value is not ...}).encode()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (changed(answer=...), "answer missing"),
        (
            changed(options=..., alternatives=[1]),
            "options missing; .* the fields are: alternatives, answer, id, question",
        ),
        (changed(answer=None), "answer missing"),
        (changed(options=...), "options missing"),
        (changed(options=None), "options missing"),
        (changed(options=[]), "0 options; must be 2 to 26"),
        (changed(options=["x"], answer=0), "1 options; must be 2 to 26"),
        (changed(options=["x", " "]), "option 2 is empty"),
        (changed(question="  "), "question is empty"),
        (changed(context=["a"]), "context must be a text"),
        (changed(id=[1]), "id must be"),
        (changed(id=True), "id must be"),
    ],
)
def test_a_question_that_cannot_be_scored_is_named_with_file_and_line(
    tmp_path: Path, line: bytes, message: str
) -> None:
    (tmp_path / "bad.jsonl").write_bytes(changed(id="first") + b"\n\n" + line + b"\n")
    with pytest.raises(InputError, match=message) as error:
        read_set(list_files(tmp_path / "bad.jsonl"))
    assert str(error.value).startswith(f"{tmp_path}/bad.jsonl:3: ")


def test_an_id_that_repeats_is_refused_with_both_places(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"twice.jsonl:2: duplicate id 'a', first at .*twice.jsonl:1"):
        read_set(write_set(tmp_path / "twice.jsonl", [GOOD, GOOD]))
    nameless = {key: value for key, value in GOOD.items() if key != "id"}
    with pytest.raises(InputError, match=r"twice.jsonl:2: the same question and options: id .*twice.jsonl:1"):
        read_set(write_set(tmp_path / "twice.jsonl", [nameless, nameless]))


EQUAL = [["kidney", "kidney"], ["kidney", " kidney "], ["caf\u00e9", "cafe\u0301"], ["a", "b", "b"]]


@pytest.mark.parametrize("options", EQUAL)
def test_equal_options_are_refused_or_left_out(tmp_path: Path, options: list[str]) -> None:
    rows = [GOOD, {**GOOD, "id": "b", "options": options, "answer": 0}]
    listing = write_set(tmp_path / "s.jsonl", [*rows, {**GOOD, "id": "c"}, {**rows[1], "id": "d"}])
    with pytest.raises(InputError, match=r"s\.jsonl:2: two options are equal.* 2 of 4 questions: .*s\.jsonl:2, 4\."):
        read_set(listing)
    found = read_set(listing, "leave_out")
    assert [question.id for question in found.questions] == ["a", "c"]
    assert found.left_out == (f"{tmp_path}/s.jsonl:2", f"{tmp_path}/s.jsonl:4")
    with pytest.raises(InputError, match="every question has two equal options"):
        read_set(write_set(tmp_path / "s.jsonl", rows[1:]), "leave_out")


def test_options_that_differ_in_case_are_not_equal(tmp_path: Path) -> None:
    assert read_set(write_set(tmp_path / "s.jsonl", [{**GOOD, "options": ["mg", "Mg"]}])).questions


def test_rows_are_read_as_they_are(tmp_path: Path) -> None:
    rows = make_questions(20, context=True)
    read = read_set(write_set(tmp_path / "s.jsonl", rows)).questions
    assert [(q.id, q.question, list(q.options), q.answer, q.context) for q in read] == [
        (r["id"], r["question"], r["options"], r["answer"], r["context"]) for r in rows
    ]


def test_byte_order_mark_unicode_line_ends_and_missing_ids(tmp_path: Path) -> None:
    text = json.dumps({**GOOD, "question": "one\u2028two?"}, ensure_ascii=False)
    rows = b"\xef\xbb\xbf" + text.encode() + b"\n" + changed(id=...) + b"\n"
    (tmp_path / "s.jsonl").write_bytes(rows)
    first, second = read_set(list_files(tmp_path / "s.jsonl")).questions
    assert first.question == "one\u2028two?"
    (tmp_path / "s.jsonl").write_bytes(changed(id=..., question="Who?") + b"\r\n" + changed(id=...))
    who, same = read_set(list_files(tmp_path / "s.jsonl")).questions
    assert second.id == same.id != who.id


def question(name: str, answer: int, options: tuple[str, ...] = ("a", "b", "c", "d")) -> Question:
    return Question(name, "q", options, answer)


@given(st.sets(st.text(min_size=1, max_size=5), min_size=1, max_size=40), st.integers(1, 45), st.integers(0, 3))
def test_a_subset_depends_on_ids_and_seed_only(names: set[str], limit: int, seed: int) -> None:
    questions = [question(name, 0) for name in sorted(names)]
    chosen = {q.id for q in subset(questions, limit, seed)}
    assert len(chosen) == min(limit, len(questions))
    assert {q.id for q in subset(questions[::-1], limit, seed)} == chosen
    assert chosen <= {q.id for q in subset(questions, limit + 1, seed)}
    assert [q.id for q in subset(questions, limit, seed)] == [q.id for q in questions if q.id in chosen]


def test_seeds_choose_differently() -> None:
    questions = [question(str(number), 0) for number in range(100)]
    assert subset(questions, 20, 1) != subset(questions, 20, 2)


@given(st.lists(st.tuples(st.integers(2, 6), st.integers(0, 5)), min_size=1, max_size=30))
def test_baselines_are_the_accuracies_of_guessing_and_of_a_constant(rows: list[tuple[int, int]]) -> None:
    texts = "abcdef"
    questions = [question(str(i), answer % n, tuple(texts[:n])) for i, (n, answer) in enumerate(rows)]
    found = baselines(questions)
    assert found.random == pytest.approx(sum(1 / n for n, _ in rows) / len(rows))
    assert found.majority == max(sum(q.answer == constant for q in questions) for constant in range(6)) / len(rows)


def test_majority_sees_texts_through_changing_positions() -> None:
    rows = [question("1", 0, ("Yes", "no")), question("2", 1, ("no", "yes")), question("3", 0, ("no", "yes"))]
    assert baselines(rows).majority == pytest.approx(2 / 3)  # yes, yes, no; by position 0, 1, 0 too
    rows.append(question("4", 1, ("no", "yes")))
    assert baselines(rows).majority == pytest.approx(3 / 4)  # by position 2 of 4


PLACES = ("file", "memory", "s3")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where sets may lie: a folder, or any fsspec URL."""
    if request.param == "file":
        return str(tmp_path / "sets")
    return (
        f"memory://{tmp_path.name}/sets" if request.param == "memory" else f"{request.getfixturevalue('bucket')}/sets"
    )


def put(place: str, name: str, data: bytes = b"") -> str:
    fs, root = fsspec.core.url_to_fs(place)
    fs.makedirs(f"{root}/{name}".rsplit("/", 1)[0], exist_ok=True)
    fs.pipe_file(f"{root}/{name}", data)
    return f"{place.replace('memory://', 'memory:///')}/{name}"


def test_sets_are_found_and_read_wherever_they_lie(place: str) -> None:
    row = {"question": "Which?", "options": ["a", "b"], "answer": 1}
    line = json.dumps(row).encode()
    paths = {
        "a": put(place, "a.jsonl.gz", gzip.compress(line)),
        "a_train": put(place, "more/a_train.jsonl", line),
        "b": put(place, "b.jsonl", line),
        "c": put(place, "c.JSONL.GZ", gzip.compress(line)),
    }
    for name in ("README.md", ".hidden.jsonl", "x.json"):
        put(place, name, b"nothing")
    found = question_sets(place)
    assert found == paths
    (other,) = [each for each in find_sets(place).unread if each.reason == "not JSON Lines"]
    assert other.names == ("README.md", "x.json")
    assert list(found) == ["a", "a_train", "b", "c"]
    assert scored_sets(found) == ["a", "b", "c"]
    assert question_sets(found["b"]) == {"b": found["b"]}
    for path in found.values():
        assert [question.question for question in read_set(list_files(path)).questions] == ["Which?"]
    assert {item.name.split("/")[0] for item in read_items({n: list_files(p) for n, p in found.items()})} == set(found)
    before = {name: list_files(path).digest for name, path in found.items()}
    put(place, "b.jsonl", json.dumps(row | {"answer": 0}).encode())
    after = {name: list_files(path).digest for name, path in found.items()}
    assert [name for name in found if before[name] != after[name]] == ["b"]


def test_a_place_without_sets_is_refused(place: str) -> None:
    with pytest.raises(InputError, match="does not exist"):
        question_sets(place)
    put(place, "README.md", b"nothing")
    with pytest.raises(
        InputError, match=r"has no question set \(\.jsonl, .*\); not read: not JSON Lines: 1 \(README.md\)$"
    ):
        question_sets(place)
    put(place, "exam.json", b"[]")
    with pytest.raises(
        InputError, match=r"2 \(README.md, exam.json\); `jq -c '\.\[\]' FILE` turns a JSON array into lines"
    ):
        question_sets(place)


def test_a_name_is_made_from_any_file_s(place: str) -> None:
    files = [
        "two words",
        "Prüfung A",
        "日本語",
        "العربية_train",
        "exam.v1_TRAIN",
        "my set.v1",
        "-dash",
        "!!!",
        "[bold]",
        "x" * 200,
    ]
    for file in files:
        put(place, f"{file}.jsonl")
    found = {path.rsplit("/", 1)[-1].removesuffix(".jsonl"): name for name, path in question_sets(place).items()}
    assert found.keys() == set(files)
    assert [found[file] for file in ("two words", "my set.v1", "Prüfung A", "-dash", "[bold]")] == [
        "two-words",
        "my-set-v1",
        "Prufung-A",
        "dash",
        "bold-",
    ]
    assert re.fullmatch(r"set-[0-9a-f]{8}", found["日本語"])
    for name in found.values():
        check_name(name)
    assert {file for file, name in found.items() if name not in scored_sets(found.values())} == {
        "العربية_train",
        "exam.v1_TRAIN",
    }


@pytest.mark.parametrize("other", ["x.jsonl.gz", "below/x.jsonl", "x.ndjson", "X.jsonl"])
def test_two_sets_of_one_name_are_refused(place: str, other: str) -> None:
    paths = {put(place, "x.jsonl"), put(place, other)}
    with pytest.raises(InputError, match="rename one of them") as refused:
        question_sets(place)
    assert all(path in str(refused.value) for path in paths)


def test_errors_about_sets_are_one_line_whatever_their_files_are_called(tmp_path: Path) -> None:
    folder = tmp_path / "two\nlines"
    folder.mkdir()
    (folder / "a\nb.json").touch()
    for place in (folder, folder / "a\nb.json"):
        with pytest.raises(InputError) as refused:
            find_sets(place)
        assert str(refused.value).isprintable()
    for name in ("a\nb.jsonl", "a\nb.ndjson"):
        write_set(folder / name, [{**GOOD, "options": ["x", "x"]}])
    listing = list_files(folder)
    for act in (lambda: find_sets(folder), lambda: read_set(listing), lambda: read_set(listing, "leave_out")):
        with pytest.raises(InputError) as refused:
            act()
        assert str(refused.value).isprintable()


def test_many_sets_are_not_compared_in_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing each with each of these takes minutes."""
    files = tuple(ListedFile(f"{number}.jsonl", 1, "") for number in range(50_000))
    monkeypatch.setattr(sets, "list_files", lambda *_, **__: Listing("/sets", files))
    assert len(question_sets("/sets")) == len(files)


def test_an_unreachable_set_is_reported(bucket: str, object_store: ObjectStore) -> None:
    place = f"{bucket}/sets"
    put(place, "x.jsonl", b"{}" * 4096)
    listing = list_files(place)
    object_store.stop()
    try:
        for act in (lambda: question_sets(place), lambda: read_set(listing), lambda: list(read_items({"x": listing}))):
            with pytest.raises(InputError, match=r"s3://.*AWS_ENDPOINT_URL"):
                act()
    finally:
        object_store.start()


@pytest.mark.parametrize("name", ["x_train", "x_TRAIN"])
def test_a_training_set_is_refused_in_the_configuration(name: str) -> None:
    with pytest.raises(ValueError, match="never scored"):
        EvaluationConfig.model_validate({"sets": {name: {}}})


def test_limits() -> None:
    config = EvaluationConfig.model_validate({"default_limit": 9, "sets": {"a": {"limit": 3}, "b": {"limit": 0}}})
    assert [config.limit(name) for name in ("a", "b", "c")] == [3, None, 9]


REAL = SHARED / "eval"


@pytest.mark.skipif(not REAL.is_dir(), reason=f"not run: reading the real sets, which are not there: {REAL}")
def test_real_sets_load() -> None:
    expected = {
        "bioasq_yesno": (309, 1 / 2, 205),
        "medmcqa": (2080, 1 / 4, 672),
        "medqa_usmle_4": (637, 1 / 4, 173),
        "mmlu_med": (545, 1 / 4, 183),
        "pubmedqa": (250, 1 / 3, 140),
        "pubmedqa_train": (500, 1 / 3, 276),
    }
    equal = {"medmcqa": 12}
    found = question_sets(REAL)
    assert sorted(found) == sorted(expected)
    for name, (count, random, majority) in expected.items():
        listing = list_files(found[name])
        if name in equal:
            with pytest.raises(InputError, match=rf"the same in {equal[name]} of {count + equal[name]} questions"):
                read_set(listing)
        read = read_set(listing, "leave_out")
        assert len(read.left_out) == equal.get(name, 0)
        questions, base = read.questions, baselines(read.questions)
        assert (len(questions), base.random, base.majority) == (count, pytest.approx(random), majority / count)
