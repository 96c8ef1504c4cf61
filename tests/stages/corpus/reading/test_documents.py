"""The first pass: records as documents, and what chunks hold of them."""

from __future__ import annotations

import hashlib
import json
import os
import unicodedata
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document

from stages.corpus import list_files, source_listing
from stages.corpus.config import CorpusConfig, FieldMapping, SourceConfig
from stages.corpus.passes import prepare
from stages.corpus.passes.prepare import Prepare
from stages.corpus.reading.documents import QuarantiningReader
from stages.corpus.reading.file_ranges import read_tasks
from stages.corpus.tables import READ, read_chunk
from stages.store import InputError
from tests.stages.corpus.corpus_world import write_lines

FIELDS = FieldMapping(text="text", id="id", url="url", license="license", title="title", retrieved_at="when")


def first_pass(
    source: Path, scratch: Path, fields: FieldMapping = FIELDS, **config: Any
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of all chunks, and the quarantine, of a source read as one task after the other."""
    described = SourceConfig(location=str(source), fields=fields)
    settings = CorpusConfig.model_validate({"sources": {"s": described}, **config})
    tasks = read_tasks("s", described, list_files(source))
    scratch.mkdir(exist_ok=True)
    reader = QuarantiningReader(tasks, scratch, settings.maximum_record_bytes)
    step = Prepare(tasks, scratch, settings)
    rows, bad = [], []
    for rank in range(len(tasks)):
        assert list(step.run(reader.run(rank=rank), rank=rank)) == []
        for chunk in json.loads((scratch / f"{rank:05}.json").read_text()):
            found = read_chunk(scratch / chunk["name"])
            assert found.schema == READ and len(found) == chunk["documents"] > 0
            rows += found.to_pylist()
        bad += [json.loads(line) for line in (scratch / f"{rank:05}.quarantine.jsonl").read_text().splitlines()]
    return rows, bad


def blake(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()


def test_a_document_is_what_its_record_says(tmp_path: Path) -> None:
    written: dict[str, Any] = {
        "text": "  Cafe\u0301 au\u2003lait\r\nand \x00 more.\rEnd ",
        "id": 7,
        "url": "https://example.org/a",
        "license": "cc by 4.0",
        "title": "On  COFFEE",
        "when": "2026-01-02",
        "other": {"nested": [1, None]},
    }
    write_lines(tmp_path / "in" / "x.jsonl", [written, {"text": "Short.", "title": " ", "url": "HTTP://B"}])
    (row, second), bad = first_pass(tmp_path / "in", tmp_path / "out")
    text = unicodedata.normalize("NFC", written["text"])
    assert bad == []
    assert row["doc_id"] == blake(text).hex() and row["exact"] == blake(" ".join(text.split()))
    assert row["bytes"] == len(text.encode())
    assert row["text"] == text.replace("\r\n", "\n").replace("\r", "\n") and "\x00" in row["text"]
    assert row["steps"] == ["nfc", "line_ends"]
    assert (row["license"], row["retrieved_at"], row["subject"]) == ("CC-BY-4.0", "2026-01-02", "On  COFFEE")
    assert (row["group"], row["file"], row["file_range"], row["record"]) == ("on coffee", "x.jsonl", 0, 1)
    assert row["record_id"] is not None and row["rule"] == ""
    assert (second["group"], second["record_id"], second["record"], second["steps"]) == ("http://b", None, 2, [])


def test_groups_do_not_run_on(tmp_path: Path) -> None:
    titles = ["A", "a", "", None, " ", "B b", "A"]
    rows = [{"text": f"Text {i}.", "title": title} for i, title in enumerate(titles)]
    write_lines(tmp_path / "in" / "x.jsonl", rows)
    found, _ = first_pass(tmp_path / "in", tmp_path / "out")
    own = [f"document {blake(f'Text {i}.').hex()}" for i in range(7)]
    assert [row["group"] for row in found] == ["a", "a", own[2], own[3], own[4], "b b", "a"]
    hashes = [row["group_hash"] for row in found]
    assert hashes[0] == hashes[1] == hashes[6] and len(set(hashes)) == 5


def test_policy_decides_before_anything_is_looked_at(tmp_path: Path) -> None:
    text = "Write to someone@example.org, please.\rA line of more than twenty characters.\n"
    rows = [{"text": text, "license": name, "url": url} for name, url in [("MIT", "u"), ("X", "u"), ("MIT", "bad/1")]]
    write_lines(tmp_path / "in" / "x.jsonl", rows)
    policy = {"denied_licenses": ["x"], "denied_urls": ["bad/*"]}
    found, _ = first_pass(tmp_path / "in", tmp_path / "out", policy=policy)
    assert [row["rule"] for row in found] == ["", "policy_license", "policy_url"]
    assert [row["text"] == text for row in found] == [False, True, True]
    assert "[EMAIL]" in found[0]["text"] and found[0]["steps"] == ["personal_data", "line_ends"]
    assert json.loads(found[0]["personal"]) == {"email": 1} and found[1]["personal"] == found[2]["personal"] == ""
    assert found[1]["steps"] == []


def test_chunks_are_bounded_in_documents_and_in_characters_of_all_fields(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"text": f"Text {i}.", "title": "t" * 400 if 20 <= i < 40 else f"t{i}"} for i in range(100)]
    write_lines(tmp_path / "in" / "x.jsonl", rows)
    monkeypatch.setattr(prepare, "CHUNK_DOCUMENTS", 30)
    monkeypatch.setattr(prepare, "CHUNK_CHARACTERS", 4000)
    found, _ = first_pass(tmp_path / "in", tmp_path / "out")
    assert [row["text"] for row in found] == [row["text"] for row in rows]
    sizes = [chunk["documents"] for chunk in json.loads((tmp_path / "out" / "00000.json").read_text())]
    assert sum(sizes) == 100 and max(sizes) == 30
    assert sizes[0] == 25, "titles and what is made of them count"


def test_fields_inside_objects_are_found_by_their_paths(tmp_path: Path) -> None:
    rows = [
        {"text": "outer", "data": {"text": "Inner text.", "meta": {"title": "One"}}},
        {"data": {"text": "Second."}},
        {"data": {"text": None}},
    ]
    write_lines(tmp_path / "json" / "x.jsonl", rows)
    (tmp_path / "parquet").mkdir()
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "parquet" / "x.parquet")
    fields = FieldMapping(text="data.text", title="data.meta.title")
    for format in ("json", "parquet"):
        found, bad = first_pass(tmp_path / format, tmp_path / f"{format}-out", fields)
        assert [(row["text"], row["subject"]) for row in found] == [("Inner text.", "One"), ("Second.", "")]
        assert [(one["record"], one["reason"]) for one in bad] == [(3, "field 'data.text' is null")]


def test_a_parquet_file_with_other_columns_is_named_with_all_of_them(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"body": ["a"], "id": [1]}), tmp_path / "in" / "x.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "in" / "y.parquet")
    _, bad = first_pass(tmp_path / "in", tmp_path / "out")
    reasons = [(one["file"], one["reason"]) for one in bad]
    assert reasons == [
        ("x.parquet", "no field 'text'; there are: body, id"),
        ("y.parquet", "no field 'text'; there are: body"),
    ]


def test_text_files_beside_records_keep_their_own_field(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [{"body": "A record."}])
    (tmp_path / "in" / "y.txt").write_text("A text.")
    found, bad = first_pass(tmp_path / "in", tmp_path / "out", FieldMapping(text="body"))
    assert [row["text"] for row in found] == ["A record.", "A text."] and bad == []


def test_reasons_are_short_however_strange_a_record_is(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [{f"{i}" * 100: i for i in range(9000)}])
    _, (bad,) = first_pass(tmp_path / "in", tmp_path / "out")
    assert bad["reason"].startswith("no field 'text'; there are: 0000") and len(bad["reason"]) < 2000
    assert bad["reason"].endswith("and 8,980 more")


def test_a_file_name_that_is_no_text_is_an_error_that_names_it(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jsonl")
    write_lines(tmp_path / "x.jsonl", [{"text": "a"}]).rename(tmp_path / name)
    with pytest.raises(InputError, match=r"name is not UTF-8: 1 \(caf"):
        source_listing(SourceConfig(location=str(tmp_path)))


def test_the_reader_is_a_step_of_datatrove(tmp_path: Path) -> None:
    write_lines(tmp_path / "in" / "x.jsonl", [{"text": "a"}, b"{", {"text": "b"}])
    source = SourceConfig(location=str(tmp_path / "in"), fields=FIELDS)
    tasks = read_tasks("s", source, list_files(tmp_path / "in"))
    reader = QuarantiningReader(tasks, tmp_path, 1 << 20)
    found = list(reader.run(rank=0))
    assert all(isinstance(document, Document) for document in found)
    assert [(document.text, document.id, document.metadata["record"]) for document in found] == [
        ("a", blake("a").hex(), 1),
        ("b", blake("b").hex(), 3),
    ]
    assert json.loads((tmp_path / "00000.counts.json").read_text()) == [3]
