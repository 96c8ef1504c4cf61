"""Lines of JSON Lines files: which are records, which are not, and files that are no JSON Lines at all."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path
from typing import Any

import pytest

from stages.corpus import list_files
from stages.corpus.reading.json_lines import NOT_UTF8, ONE_A_LINE
from stages.corpus.reading.record import BadRecord
from stages.corpus.reading.records import read_records

GOOD = {"id": 1, "text": "a"}


def read_all(folder: Path, data: bytes) -> list[dict[str, Any] | BadRecord]:
    (folder / "x.jsonl").write_bytes(data)
    return [record.value for record in read_records(list_files(folder), "x.jsonl", "jsonl")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_another_encoding_is_named(tmp_path: Path, encoding: str) -> None:
    data = ('{"text": "Some text of a Windows machine"}\n' * 3).encode(encoding)
    reason = NOT_UTF8.format(encoding[:6].upper())
    assert read_all(tmp_path, data) == [BadRecord(reason, rest_lost=True)]
    values = read_all(tmp_path, b'{"text": "UTF-8"}\n' + data)
    assert values[0] == {"text": "UTF-8"} and BadRecord(reason) in values[1:]
    assert all(isinstance(value, BadRecord) for value in values[1:])


@pytest.mark.parametrize(
    "data",
    [
        b'{\n  "id": 1,\n  "text": "a"\n}\n',
        b'\n\xef\xbb\xbf{\r\n  "text": "a"\r\n}\r\n',
        b'[\n{"text": "a"},\n{"text": "b"},\n{}]\n',
        b'[{"text": "a"},\n {"text": "b"}]',
        b'[{"text": "a"}, {"text": "b"}]',
    ],
)
def test_a_value_over_several_lines_is_told_how_to_become_json_lines(tmp_path: Path, data: bytes) -> None:
    first, *others = read_all(tmp_path, data)
    assert isinstance(first, BadRecord) and ONE_A_LINE in first.reason and not first.rest_lost
    assert all(isinstance(value, BadRecord) and ONE_A_LINE not in value.reason for value in others)


def test_a_broken_first_line_loses_no_other(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    for first in (b"{", b"[", b"[1,", b'["text"]', b"\xff"):
        bad, second = read_all(tmp_path, first + b"\n" + line)
        assert isinstance(bad, BadRecord) and not bad.rest_lost and second == GOOD


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7\n1 0 obj\n", "a PDF document"),
        (gzip.compress(json.dumps(GOOD).encode()), r"gzip data \(a file named \.gz"),
        (b"PAR1\x15\x04\n\n", "Parquet data"),
        (b"PK\x03\x04\n\n", "a ZIP archive"),
    ],
)
def test_files_of_other_formats_are_named(tmp_path: Path, data: bytes, words: str) -> None:
    (value,) = read_all(tmp_path, data)
    assert isinstance(value, BadRecord) and value.rest_lost, "its lines are counted, and lost"
    assert re.search(words, value.reason)


def test_line_ends_and_marks_of_joined_files_are_no_part_of_records(tmp_path: Path) -> None:
    line = json.dumps(GOOD).encode()
    mark = b"\xef\xbb\xbf"
    data = mark + line + b"\r\n\r\n" + mark + line + b"\n" + '{"id": 1, "text": "a\u2028\x85b"}'.encode()
    assert read_all(tmp_path, data) == [GOOD, GOOD, {"id": 1, "text": "a\u2028\x85b"}]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a", "text": "b"}', "the key 'text' occurs more than once in an object"),
        (b'{"text": "a", "meta": {"n": 1, "n": 2}}', "the key 'n' occurs more than once in an object"),
        (b'{"text": "a", "score": NaN}', "NaN is not a JSON value"),
        (b'{"text": "a", "score": -Infinity}', "-Infinity is not a JSON value"),
        (b'{"text": "a", "x": ' + b"[" * 1100 + b"]" * 1100 + b"}", "nested more than 200 levels deep"),
    ],
)
def test_what_parsers_read_differently_is_no_record(tmp_path: Path, line: bytes, reason: str) -> None:
    good = json.dumps(GOOD).encode()
    assert read_all(tmp_path, b"\n".join([good, line, good])) == [GOOD, BadRecord(reason), GOOD]


def test_large_numbers_stay_exact(tmp_path: Path) -> None:
    assert read_all(tmp_path, b'{"id": 123456789012345678901234567890}') == [{"id": 123456789012345678901234567890}]
