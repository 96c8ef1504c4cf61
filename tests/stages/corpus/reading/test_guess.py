"""What is guessed about sources, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import FieldMapping, SourceConfig, printable, source_listing, sources_in
from stages.corpus.reading import field_counts
from stages.corpus.reading.fields import ABSENT
from stages.corpus.reading.guess import resolve_fields
from stages.store import InputError
from tests.stages.corpus.corpus_world import write_lines


def guessed(tmp_path: Path, row: dict[str, Any], **fields: str) -> FieldMapping:
    path = write_lines(tmp_path / "x.jsonl", [row, row])
    source = SourceConfig(location=str(path), fields=FieldMapping(**fields))
    return resolve_fields(source_listing(source), source)


def test_common_names_are_found(tmp_path: Path) -> None:
    row = {"id": 7, "content": "t", "focus": "f", "source_url": "u", "licence": "MIT", "date": "2020", "n": 1}
    fields = guessed(tmp_path, row)
    assert fields == FieldMapping(
        text="content", id="id", url="source_url", license="licence", group="focus", title="focus", retrieved_at="date"
    )


def test_question_and_answer_make_a_text_when_there_is_no_other(tmp_path: Path) -> None:
    assert guessed(tmp_path, {"question": "q", "answer": "a"}).text == "question+answer"
    assert guessed(tmp_path, {"question": "q", "answer": "a", "text": "t"}).text == "text"


def columns(tmp_path: Path, name: str, rows: list[dict[str, Any]]) -> str | None:
    """The field that is taken for the text, of one file."""
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / name, row_group_size=500)
    else:
        write_lines(tmp_path / name, rows)
    source = SourceConfig(location=str(tmp_path / name))
    return resolve_fields(source_listing(source), source).text


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.parquet"])
@pytest.mark.parametrize("first", [None, "", " \n", ABSENT])
def test_present_strings_all_over_a_file_decide(tmp_path: Path, name: str, first: Any) -> None:
    rows: list[dict[str, Any]] = [{"abstract": "a", "text": first if i < 1200 else "t"} for i in range(3000)]
    rows = [{key: value for key, value in row.items() if value is not ABSENT} for row in rows]
    if name.endswith(".parquet"):  # its schema is taken from the first row
        rows = [{"text": None, **row} for row in rows]
    assert columns(tmp_path, name, rows) == "text"


@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([{"text": "t", "abstract": "a"}] * 4, "text"),
        ([{"text": "t", "html": "<p>" + "t" * 90}] * 4, "text"),
        ([{"text": "t", "abstract": "a"}] * 2 + [{"abstract": "a"}] * 2, "text"),
        ([{"text": "t"}] + [{"abstract": "a"}] * 3, "abstract"),
        ([{"text": 5, "body": "b"}] * 3, "body"),
        ([{"text": ["t"], "content": "c"}] * 3, "content"),
        ([{"Text": "t", "id": 1}] * 3, "Text"),
        ([{"TEXT": "t", "Body": "b"}] * 3, "TEXT"),
        ([{"Text": "t", "text": "u"}] * 3, "text"),
        ([{"Text": "t", "text": None}] * 3, "Text"),
        (
            [{"abstract": "a", "question": "q", "answer": "a"}] + [{"question": "q", "answer": "a"}] * 5,
            "question+answer",
        ),
        ([{"Question": "q", "Answer": "a"}] * 5, "Question+Answer"),
    ],
)
def test_the_best_name_that_most_records_have_is_the_text(
    tmp_path: Path, rows: list[dict[str, Any]], text: str
) -> None:
    assert columns(tmp_path, "x.jsonl", rows) == text


def test_many_large_files_are_read_at_places_all_over_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(field_counts, "SAMPLED_RECORDS", 64)
    for file in range(100):
        row = {"abstract": "a", "text": "t" if 20 <= file < 90 else None}
        write_lines(tmp_path / f"{file:03}.jsonl", [row] * 9)
    source = SourceConfig(location=str(tmp_path))
    counts = field_counts.count_fields(source_listing(source), source)
    assert 32 <= counts.records <= 64
    assert 0.5 < counts.strings("text") / counts.records < 0.9
    assert resolve_fields(source_listing(source), source).text == "text"


@pytest.mark.parametrize(
    ("row", "listed"),
    [
        ({"id": 1, "text": None}, r"id (number), text (null)"),
        ({"id": 1, "text": ["t"]}, r"id (number), text (list)"),
        ({"id": 1, "data": {"words": "t"}}, r"data (object), data.words (string), id (number)"),
        ({"text": " "}, r"text (empty string)"),
    ],
)
def test_a_source_without_text_is_refused_with_types_and_paths(
    tmp_path: Path, row: dict[str, Any], listed: str
) -> None:
    with pytest.raises(InputError, match=rf"no field looks like.*as data\.text.*2 were read\): {re.escape(listed)}$"):
        guessed(tmp_path, row)


def test_records_without_fields_are_said_to_have_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"\(2 were read\): none, the records have no fields$"):
        guessed(tmp_path, {})
    with pytest.raises(InputError, match=r"they have: none, the records have no fields$"):
        guessed(tmp_path, {}, text="body")


def test_a_text_inside_an_object_is_found_where_no_field_of_its_own_is_one(tmp_path: Path) -> None:
    nested = {"comment": {"text": "t"}, "Data": {"Content": "c"}, "meta": {"id": "i", "title": "T"}}
    assert guessed(tmp_path, nested) == FieldMapping(
        text="comment.text", id="", url="", license="", group="", title="", retrieved_at=""
    )
    assert guessed(tmp_path, {"Data": {"Content": "c"}}).text == "Data.Content"
    assert guessed(tmp_path, {"qa": {"question": "q", "answer": "a"}}).text == "qa.question+qa.answer"
    assert guessed(tmp_path, nested | {"abstract": "a"}).text == "abstract"


def test_a_recipe_names_a_field_inside_an_object(tmp_path: Path) -> None:
    row = {"data": {"text": "t", "q": "q"}, "a": "a"}
    assert guessed(tmp_path, row, text="data.text").text == "data.text"
    assert guessed(tmp_path, row, text="data.q+a").text == "data.q+a"
    with pytest.raises(
        InputError, match=r"no 'data\.body'; they have: a \(string\), data \(object\), data\.q \(string\)"
    ):
        guessed(tmp_path, row, text="data.body")


def test_records_decide_beside_text_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("A text.")
    write_lines(tmp_path / "b.jsonl", [{"body": "b"}])
    source = SourceConfig(location=str(tmp_path))
    assert resolve_fields(source_listing(source), source).text == "body"


def test_a_column_that_cannot_be_read_is_taken_for_no_field_and_hides_no_other(tmp_path: Path) -> None:
    zones = pa.array([1, 2], pa.timestamp("us", "Nowhere/Land"))
    columns = [pa.array(["a", "b"]), zones, pa.array([1, 2]), pa.array([3, 4])]
    pq.write_table(pa.Table.from_arrays(columns, names=["body", "date", "x", "x"]), tmp_path / "x.parquet")
    source = SourceConfig(location=str(tmp_path))
    fields = resolve_fields(source_listing(source), source)
    assert fields.text == "body" and fields.retrieved_at == ""


def test_what_the_recipe_says_stays(tmp_path: Path) -> None:
    fields = guessed(tmp_path, {"text": "t", "body": "b", "title": "x"}, text="body", group="")
    assert (fields.text, fields.group, fields.title) == ("body", "", "title")


def test_named_and_missing_fields_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'txt'.*they have: body \(string\), n \(number\)"):
        guessed(tmp_path, {"body": "t", "n": 1}, text="txt")
    with pytest.raises(InputError, match=r"no field looks like.*n \(number\), words \(string\)"):
        guessed(tmp_path, {"n": 1, "words": "t"})


def test_each_file_and_subfolder_is_a_source(tmp_path: Path) -> None:
    write_lines(tmp_path / "one.jsonl.gz", [{"text": "a"}])
    write_lines(tmp_path / "two" / "x.jsonl", [{"body": "a"}])
    write_lines(tmp_path / "two" / "deep" / "y.jsonl", [{"body": "a"}])
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "n.txt").write_text("note")
    (tmp_path / "README.txt").write_text("about")
    (tmp_path / "paper.pdf").write_text("no")
    pq.write_table(pa.table({"abstract": ["a"], "pmid": [1]}), tmp_path / "three.parquet")
    sources = sources_in(str(tmp_path))
    assert list(sources) == ["notes", "one", "three", "two"]
    assert {name: s.fields.text for name, s in sources.items()} == {
        "notes": "text",
        "one": "text",
        "three": "abstract",
        "two": "body",
    }
    assert len(source_listing(sources["two"]).files) == 2
    columns, rows = printable(sources)
    assert len(rows) == 4 and all(len(row) == len(columns) for row in rows)


def test_a_file_and_a_folder_of_one_name_are_told_apart(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    write_lines(tmp_path / "a" / "x.jsonl", [{"text": "a"}])
    assert list(sources_in(str(tmp_path))) == ["a", "a_jsonl"]


def test_no_documents_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty folder"):
        sources_in(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        sources_in(str(tmp_path / "gone"))
    (tmp_path / "x.pdf").write_text("")
    with pytest.raises(InputError, match=r"x\.pdf"):
        sources_in(str(tmp_path))
