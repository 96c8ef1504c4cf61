from __future__ import annotations

import gzip
import tracemalloc
from pathlib import Path

import pytest

from stages.corpus import list_files
from stages.questions import files
from stages.questions.files import read_lines, set_name
from stages.store import InputError


def test_lines_are_numbered_without_blanks_byte_order_mark_and_line_ends(tmp_path: Path) -> None:
    data = b'\xef\xbb\xbf{"a": 1}\r\n\n  \n{"a":  2}\n{"a": 3}'
    for name, content in (("s.jsonl", data), ("s.NDJSON.gz", gzip.compress(data))):
        (tmp_path / name).write_bytes(content)
        lines = list(read_lines(list_files(tmp_path / name)))
        assert [(line.number, line.content) for line in lines] == [
            (1, b'{"a": 1}'),
            (4, b'{"a":  2}'),
            (5, b'{"a": 3}'),
        ]
        assert lines[1].where == f"{tmp_path}/{name}:4"
        assert [line.fields["a"] for line in lines] == [1, 2, 3]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"id": "a", "question"', "not valid JSON: broken JSON"),
        (b'{"a": NaN}', "NaN is not a JSON value"),
        (b'{"answer": 0, "answer": 1}', "'answer' occurs more than once"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"a": "\xff"}', "invalid UTF-8"),
        (b'"text"', "must be a JSON object, not str"),
        (b'[{"question": "?"}]', "a JSON array; a set has one question per line"),
        (b"[", "a JSON array; a set has one question per line"),
    ],
)
def test_a_bad_line_is_named_with_file_and_line(tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "s.jsonl").write_bytes(b"{}\n\n" + line + b"\n")
    with pytest.raises(InputError, match=message) as error:
        list(read_lines(list_files(tmp_path / "s.jsonl")))
    assert str(error.value).startswith(f"{tmp_path}/s.jsonl:3: ")


@pytest.mark.parametrize("name", ["s.jsonl", "s.jsonl.gz"])
def test_a_line_that_would_fill_the_memory_is_refused(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "LONGEST_LINE", 1 << 20)
    longest = b'{"a": "' + b"x" * ((1 << 20) - 10) + b'"}\n'
    data = longest + longest + b" " * (20 << 20)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    lines = read_lines(list_files(tmp_path / name))
    assert [next(lines).number, next(lines).number] == [1, 2]
    tracemalloc.start()
    with pytest.raises(InputError, match=rf"{name}:3: more than 1 MiB in a line; a set has one question per line"):
        next(lines)
    assert tracemalloc.get_traced_memory()[1] < 5 << 20
    tracemalloc.stop()


@pytest.mark.parametrize("content", [gzip.compress(b"{}\n" * 9000)[:-12], b"plain", gzip.compress(b"{}\n")[:-6]])
def test_damaged_compression_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s.jsonl.gz").write_bytes(content)
    with pytest.raises(InputError, match=r"s\.jsonl\.gz: the gzip file is truncated or damaged after line \d+"):
        list(read_lines(list_files(tmp_path / "s.jsonl.gz")))


def test_other_files_are_no_set(tmp_path: Path) -> None:
    (tmp_path / "exam.json").write_text("[]")
    with pytest.raises(
        InputError, match=r"has no questions: .*\.jsonl\.gz.*its files are: exam\.json; `jq -c '\.\[\]' FILE` turns a"
    ):
        list(read_lines(list_files(tmp_path)))
    names = ["a/exam.jsonl", "exam.JSONL.gz", "exam.v2.ndjson", "exam.json", "exam.jsonl.bz2"]
    assert [set_name(name) for name in names] == ["exam", "exam", "exam.v2", None, None]
