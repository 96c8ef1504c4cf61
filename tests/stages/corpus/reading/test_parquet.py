"""Rows of Parquet files: what Python cannot represent, what is large, and columns that a file does not have."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from types import NoneType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import list_files
from stages.corpus.config import SourceConfig
from stages.corpus.reading import file_ranges, parquet
from stages.corpus.reading.file_ranges import read_tasks
from stages.corpus.reading.parquet import row_group_of, spread_row_groups
from stages.corpus.reading.record import BadRecord, FileRange, Unreadable
from stages.corpus.reading.records import read_records
from stages.store import InputError


def read_all(folder: Path, name: str, **more: Any) -> list[dict[str, Any] | BadRecord]:
    return [record.value for record in read_records(list_files(folder), name, "parquet", **more)]


def test_parquet_values_without_a_counterpart_in_python(tmp_path: Path) -> None:
    texts = pa.array(["a", "b", "c"])
    days = pa.array([1, 4_000_000, None], pa.date32())
    pq.write_table(pa.table({"text": texts, "when": days}), tmp_path / "days.parquet")
    found = read_all(tmp_path, "days.parquet")
    assert [isinstance(value, dict) and value["text"] for value in found] == ["a", "b", "c"]
    assert isinstance(found[1], dict) and found[1]["when"].startswith("12921-")
    far = pa.array([1, 10**9, None], pa.date32())
    pq.write_table(pa.table({"text": texts, "when": far}), tmp_path / "far.parquet")
    found = read_all(tmp_path, "far.parquet")
    assert [isinstance(value, dict) and type(value["when"]) for value in found] == [date, Unreadable, NoneType]
    zones = pa.array([1, 2, None], pa.timestamp("us", "Nowhere/Land"))
    pq.write_table(pa.table({"text": texts, "when": zones}), tmp_path / "zones.parquet")
    for value in read_all(tmp_path, "zones.parquet")[:2]:
        assert (
            isinstance(value, dict) and value["text"] and value["when"].reason.startswith("field when cannot be read")
        )
    for value in read_all(tmp_path, "zones.parquet", columns=["text", "when"])[:2]:
        assert isinstance(value, BadRecord) and value.reason.startswith("field when cannot be read")
    read_only_text = read_all(tmp_path, "zones.parquet", columns=["text"])
    assert read_only_text == [{"text": "a"}, {"text": "b"}, {"text": "c"}]


def test_parquet_is_read_few_rows_at_a_time_where_they_are_large(tmp_path: Path) -> None:
    rows = [{"text": f"{i}" * 1000} for i in range(2000)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", use_dictionary=False, row_group_size=1000)
    metadata = pq.read_metadata(tmp_path / "x.parquet")
    assert parquet._rows_at_a_time(metadata, [0, 1]) == parquet.PARQUET_ROWS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parquet, "PARQUET_BYTES", 50_000)
        assert 10 <= parquet._rows_at_a_time(metadata, [0, 1]) <= 20
        assert read_all(tmp_path, "x.parquet") == rows
    assert parquet._rows_at_a_time(metadata, []) == parquet.PARQUET_ROWS


def test_limits_count_bytes_not_characters(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["é" * 1000, "e" * 1000, "é" * 400]}), tmp_path / "x.parquet")
    found = read_all(tmp_path, "x.parquet", limit=1500)
    assert isinstance(found[0], BadRecord) and "2,000 bytes" in found[0].reason
    assert [isinstance(value, BadRecord) for value in found] == [True, False, False]


def test_strings_inside_objects_count_too(tmp_path: Path) -> None:
    pq.write_table(pa.table({"data": [{"text": "e" * 2000}, {"text": "e" * 400}]}), tmp_path / "x.parquet")
    found = read_all(tmp_path, "x.parquet", limit=1500)
    assert [isinstance(value, BadRecord) for value in found] == [True, False]


def test_a_file_without_the_columns_has_its_rows_and_says_what_there_is(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["a", "b"], "n": [1, 2]}), tmp_path / "x.parquet")
    found = list(read_records(list_files(tmp_path), "x.parquet", "parquet", columns=["text"]))
    assert [list(record.columns) for record in found] == [["body", "n"]] * 2


def test_of_two_columns_of_one_name_none_is_chosen(tmp_path: Path) -> None:
    table = pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"]), pa.array([1])], names=["text", "text", "id"])
    pq.write_table(table, tmp_path / "x.parquet")
    (value,) = read_all(tmp_path, "x.parquet", columns=["text"])
    assert value == BadRecord("the Parquet file has more than one column 'text'", rest_lost=True)
    assert read_all(tmp_path, "x.parquet", columns=["id"]) == [{"id": 1}]
    assert read_all(tmp_path, "x.parquet") == [{"id": 1, "text": Unreadable(value.reason)}]


def test_a_column_name_that_is_not_utf8_is_a_reason_not_to_read_the_file(tmp_path: Path) -> None:
    table = pa.table({"text": ["x"] * 3, "notes_x": ["a"] * 3})
    pq.write_table(table, tmp_path / "x.parquet", store_schema=False)
    data = (tmp_path / "x.parquet").read_bytes()
    (tmp_path / "x.parquet").write_bytes(data.replace(b"notes_x", b"not\xd2s_x"))
    (value,) = read_all(tmp_path, "x.parquet", columns=["text"])
    assert isinstance(value, BadRecord) and value.rest_lost and "utf-8" in value.reason
    listing = list_files(tmp_path)
    assert spread_row_groups(listing, "x.parquet", 4) == [FileRange("x.parquet")]
    with pytest.raises(InputError, match="cannot be read"):
        row_group_of(listing, "x.parquet", 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_ranges, "TASK_BYTES", 1)
        (task,) = read_tasks("s", SourceConfig(location=str(tmp_path)), listing)
    assert task.ranges == (FileRange("x.parquet"),)


def test_row_groups_are_spread_over_the_file(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["a"] * 50}), tmp_path / "x.parquet", row_group_size=5)
    (tmp_path / "y.parquet").write_bytes(b"PAR1 this is not it PAR1")
    listing = list_files(tmp_path)
    assert [one.start for one in spread_row_groups(listing, "x.parquet", 4)] == [0, 2, 5, 7]
    assert len(spread_row_groups(listing, "x.parquet", 99)) == 10
    assert spread_row_groups(listing, "y.parquet", 4) == [FileRange("y.parquet")]
