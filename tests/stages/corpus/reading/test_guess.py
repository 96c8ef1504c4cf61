"""What is guessed about sources, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import FieldMapping, SourceConfig, printable, source_listing, sources_in
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


def test_what_the_recipe_says_stays(tmp_path: Path) -> None:
    fields = guessed(tmp_path, {"text": "t", "body": "b", "title": "x"}, text="body", group="")
    assert (fields.text, fields.group, fields.title) == ("body", "", "title")


def test_named_and_missing_fields_are_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'txt'.*they have: body, n"):
        guessed(tmp_path, {"body": "t", "n": 1}, text="txt")
    with pytest.raises(InputError, match=r"no field looks like.*n, words"):
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
    assert list(sources_in(str(tmp_path))) == ["a", "a.jsonl"]


def test_no_documents_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="empty folder"):
        sources_in(str(tmp_path))
    with pytest.raises(InputError, match="does not exist"):
        sources_in(str(tmp_path / "gone"))
    (tmp_path / "x.pdf").write_text("")
    with pytest.raises(InputError, match=r"x\.pdf"):
        sources_in(str(tmp_path))
