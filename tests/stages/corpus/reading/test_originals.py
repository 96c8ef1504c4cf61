"""A document's uri leads back to its record."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import list_files
from stages.corpus.config import SourceConfig
from stages.corpus.reading.originals import read_original
from stages.corpus.reading.record import BadRecord, Unreadable
from stages.corpus.reading.records import read_records
from stages.store import InputError
from tests.stages.corpus.corpus_world import sentence, write_lines


def test_originals_are_found_again(tmp_path: Path) -> None:
    rows = [{"id": i, "text": sentence(i)} for i in range(50)]
    write_lines(tmp_path / "x.jsonl", [b"\xef\xbb\xbf" + json.dumps(rows[0]).encode(), b"", b"{", *rows[1:]])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "y.parquet", row_group_size=7)
    write_lines(tmp_path / "z.json", rows)
    listing, lines = list_files(tmp_path), SourceConfig(location=str(tmp_path), format="jsonl")
    for record in read_records(list_files(tmp_path), "x.jsonl", "jsonl"):
        if not isinstance(record.value, BadRecord):
            assert read_original(listing, f"x.jsonl#{record.number}") == record.value
    assert [read_original(listing, f"y.parquet#{i + 1}") for i in range(50)] == rows
    assert read_original(listing, "z.json#50", lines) == rows[-1]
    wrong = ["x.jsonl#3", "x.jsonl#0", "x.jsonl#53", "y.parquet#51", "y.parquet#0", "z.json#1", "x.jsonl", "#1", "x#²"]
    for uri in wrong:
        with pytest.raises(InputError, match="no record"):
            read_original(listing, uri)


def test_a_column_that_cannot_be_read_hides_no_other(tmp_path: Path) -> None:
    zones = pa.array([1, 2], pa.timestamp("us", "Nowhere/Land"))
    pq.write_table(pa.table({"text": ["a", "b"], "when": zones}), tmp_path / "x.parquet")
    found = read_original(list_files(tmp_path), "x.parquet#2")
    assert found["text"] == "b" and isinstance(found["when"], Unreadable)
