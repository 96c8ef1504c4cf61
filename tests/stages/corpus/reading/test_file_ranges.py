"""Ranges of files: each line once, whatever the cuts; numbers that lead back; lines that are too long."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus import list_files
from stages.corpus.config import SourceConfig
from stages.corpus.kernels.collapse import collapse_white_space, fingerprints
from stages.corpus.reading import file_ranges, json_lines
from stages.corpus.reading import lines as lines_module
from stages.corpus.reading.file_ranges import first_records, read_tasks
from stages.corpus.reading.lines import TooLong, lines
from stages.corpus.reading.listing import ListedFile, Listing
from stages.corpus.reading.originals import read_original
from stages.corpus.reading.record import BadRecord, FileRange, RecordCount
from stages.corpus.reading.records import format_of, read_records
from stages.corpus.texts import Texts
from stages.store import InputError
from tests.stages.corpus.corpus_world import sentence, write_lines


@given(
    st.lists(st.binary(max_size=12).map(lambda b: b.replace(b"\n", b"x")), max_size=12),
    st.booleans(),
    st.lists(st.integers(0, 100), max_size=5),
    st.integers(0, 12),
    st.integers(1, 9),
)
def test_ranges_give_each_line_once(found: list[bytes], ends: bool, cuts: list[int], limit: int, block: int) -> None:
    data = b"\n".join(found) + (b"\n" if ends and found else b"")
    wanted = data.split(b"\n")[: -1 if data.endswith(b"\n") or not data else None]
    places = sorted({0, *(cut for cut in cuts if 0 < cut < len(data)), len(data)})
    before = lines_module.BLOCK
    lines_module.BLOCK = block
    try:
        got = [line for start, end in itertools.pairwise(places) for line in lines(io.BytesIO(data), limit, start, end)]
        whole = list(lines(io.BytesIO(data), limit))
    finally:
        lines_module.BLOCK = before
    assert got == whole == [TooLong(len(line)) if len(line) > limit else line for line in wanted]
    assert [isinstance(line, TooLong) for line in got] == [len(line) > limit for line in wanted]


class Counting(io.BytesIO):
    """A stream that knows how much was read."""

    taken = 0

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self.taken += len(data)
        return data


def test_a_line_that_covers_ranges_is_not_read_once_a_range(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines_module, "BLOCK", 1 << 10)
    monkeypatch.setattr(lines_module, "FIRST", 1 << 10)
    data = b"first\n" + b"x" * 1_000_000 + b"\nlast"
    cuts = [len(data) * i // 50 for i in range(51)]
    taken, got = 0, []
    for start, end in itertools.pairwise(cuts):
        stream = Counting(data)
        got += list(lines(stream, 1000, start, end))
        taken += stream.taken
    assert got == [b"first", TooLong(1_000_000), b"last"]
    assert taken < 2.2 * len(data)


def records_of(folder: Path, config: SourceConfig) -> list[tuple[str, int, Any]]:
    """All records by file and number, read in tasks."""
    tasks = read_tasks("s", config, list_files(folder))
    read, seen = [], []
    for task in tasks:
        counts = []
        for file_range in task.ranges:
            format = "parquet" if file_range.file.endswith("parquet") else "jsonl"
            count = RecordCount()
            found = list(read_records(task.listing, file_range, format, count=count))
            counts.append(count.number)
            read.append([(file_range.file, record) for record in found])
        seen.append(counts)
    first = itertools.chain.from_iterable(first_records(tasks, seen))
    return [(file, base + r.number, r.value) for base, part in zip(first, read, strict=True) for file, r in part]


def test_numbers_do_not_depend_on_ranges(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": i, "text": sentence(i)} for i in range(400)]
    write_lines(tmp_path / "a.jsonl", [b"", *rows[:200], *[b""] * 9000, b"{", *rows[200:], b"", b""])
    write_lines(tmp_path / "b.jsonl.gz", rows)
    write_lines(tmp_path / "c.jsonl", rows[:1])
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "d.parquet", row_group_size=90)
    config = SourceConfig(location=str(tmp_path))
    whole = records_of(tmp_path, config)
    assert len(whole) == 401 + 400 + 1 + 400
    assert [number for file, number, _ in whole if file == "a.jsonl"] == [*range(2, 202), *range(9202, 9403)]
    assert [number for file, number, value in whole if isinstance(value, BadRecord)] == [9202]
    for size in (1 << 14, 5000):
        monkeypatch.setattr(file_ranges, "TASK_BYTES", size)
        tasks = read_tasks("s", config, list_files(tmp_path))
        assert len(tasks) > 4 and len({file_range for task in tasks for file_range in task.ranges}) > 6
        assert {file.name for task in tasks for file in task.listing.files} == {p.name for p in tmp_path.iterdir()}
        assert records_of(tmp_path, config) == whole


def test_ranges_of_a_remote_file(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": i, "text": sentence(i)} for i in range(300)]
    files = MemoryFileSystem()
    files.pipe("/file_ranges/a.jsonl", b"".join(json.dumps(row).encode() + b"\n" for row in rows))
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=40)
    files.pipe("/file_ranges/b.parquet", sink.getvalue())
    try:
        listing = list_files("memory://file_ranges")
        monkeypatch.setattr(file_ranges, "TASK_BYTES", 9000)
        tasks = read_tasks("s", SourceConfig(location="memory://file_ranges"), listing)
        ranges = [(task.listing, file_range) for task in tasks for file_range in task.ranges]
        assert [file_range.file for _, file_range in ranges].count("a.jsonl") > 3 and len(ranges) > 10
        found = [
            record.value
            for listing, file_range in ranges
            for record in read_records(listing, file_range, "jsonl" if file_range.file == "a.jsonl" else "parquet")
        ]
        assert found == rows + rows
    finally:
        files.rm("/file_ranges", recursive=True)


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.txt", "x.parquet"])
def test_a_connection_that_breaks_ends_the_run_and_condemns_no_record(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"id": i, "text": sentence(i)} for i in range(20_000)]
    data = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink, row_group_size=5000)
    content = {"x.jsonl.gz": gzip.compress(data, 1), "x.parquet": sink.getvalue()}.get(name, data)
    files = MemoryFileSystem()
    files.pipe(f"/breaking/{name}", content)
    broken = len(content) // 2

    def read(self: MemoryFile, size: int = -1) -> bytes:
        if self.tell() <= broken < self.tell() + (size if size >= 0 else len(content)):
            raise ConnectionResetError("the other side hung up")
        return io.BytesIO.read(self, size)

    try:
        listing = list_files("memory://breaking")
        monkeypatch.setattr(MemoryFile, "read", read)
        found = []
        with pytest.raises(InputError, match="hung up"):
            found += list(read_records(listing, name, str(format_of(name))))
        assert not any(isinstance(record.value, BadRecord) for record in found)
    finally:
        files.rm("/breaking", recursive=True)


def test_what_is_lost_in_a_range_is_counted_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"id": i, "text": sentence(i)} for i in range(100)]
    write_lines(tmp_path / "a.jsonl", [b"\xff\xfe", *rows])
    path = tmp_path / "b.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=25, compression="none", use_dictionary=False)
    group = pq.read_metadata(path).row_group(1).column(1)
    data = bytearray(path.read_bytes())
    data[group.data_page_offset : group.data_page_offset + 8] = b"\xff" * 8
    path.write_bytes(data)
    monkeypatch.setattr(file_ranges, "TASK_BYTES", 5000)
    found = records_of(tmp_path, SourceConfig(location=str(tmp_path)))
    bad = [(file, number) for file, number, value in found if isinstance(value, BadRecord)]
    assert bad == [("a.jsonl", 1), ("b.parquet", 26)]
    good = {(file, number): value for file, number, value in found if not isinstance(value, BadRecord)}
    assert {number - 2 for file, number in good if file == "a.jsonl"} > {*range(50, 100)}
    assert [number for file, number in good if file == "b.parquet"] == [*range(1, 26), *range(51, 101)]
    for (file, number), value in good.items():
        assert value == rows[number - (2 if file == "a.jsonl" else 1)]
        assert read_original(list_files(tmp_path), f"{file}#{number}") == value


def test_a_range_that_cannot_be_read_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        yield b"{}"
        raise OSError("Input/output error")

    write_lines(tmp_path / "a.jsonl", [{"text": "a"}])
    monkeypatch.setattr(json_lines, "lines", broken)
    listing = list_files(tmp_path)
    assert [record.number for record in read_records(listing, "a.jsonl", "jsonl")] == [1, 2]
    with pytest.raises(InputError, match=r"a\.jsonl cannot be read .*Input/output error"):
        list(read_records(listing, FileRange("a.jsonl", 0, 5), "jsonl"))


def test_a_record_of_fifty_megabytes_lies_in_one_range(tmp_path: Path) -> None:
    rows = [{"text": "first"}, {"text": "word " * (10 << 20)}, {"text": "last"}]
    write_lines(tmp_path / "a.jsonl", rows)
    assert len(read_tasks("s", SourceConfig(location=str(tmp_path)), list_files(tmp_path))) == 7
    found = records_of(tmp_path, SourceConfig(location=str(tmp_path)))
    assert [number for _, number, _ in found] == [1, 2, 3]
    assert all(value == row for (_, _, value), row in zip(found, rows, strict=True))


@pytest.mark.parametrize("name", ["x.jsonl.gz", "x.txt.gz"])
def test_what_bursts_when_it_is_unpacked_is_not_held(name: str, tmp_path: Path) -> None:
    with gzip.open(tmp_path / name, "wb", compresslevel=1) as out:
        for _ in range(200):
            out.write(b"a" * (1 << 20))
        out.write(b'\n{"text": "behind"}\n' if "jsonl" in name else b"")
    tracemalloc.start()
    try:
        found = list(read_records(list_files(tmp_path), name, str(format_of(name)), limit=1 << 20))
        assert tracemalloc.get_traced_memory()[1] < 32 << 20
    finally:
        tracemalloc.stop()
    assert isinstance(found[0].value, BadRecord) and found[0].value.reason.startswith(
        "the record has 209,715,200 bytes"
    )
    assert [record.value for record in found[1:]] == ([{"text": "behind"}] if "jsonl" in name else [])


def test_small_files_share_a_task(tmp_path: Path) -> None:
    for i in range(50):
        write_lines(tmp_path / f"{i}.jsonl", [{"text": sentence(i)}])
    (task,) = read_tasks("s", SourceConfig(location=str(tmp_path)), list_files(tmp_path))
    assert [file_range.file for file_range in task.ranges] == sorted(f"{i}.jsonl" for i in range(50))


def test_a_hundred_thousand_small_files_are_shared_out() -> None:
    files = tuple(ListedFile(f"{i:06}.txt", 100, "") for i in range(100_000))
    tasks = read_tasks("s", SourceConfig(location="/nowhere"), Listing("/nowhere", files))
    assert [len(task.ranges) for task in tasks] == [1000] * 100
    assert [task.bytes for task in tasks] == [100_000] * 100
    assert [file for task in tasks for file in task.listing.files] == list(files)


@given(
    st.lists(
        st.text(
            st.sampled_from("a é\u3000\u2003\x85\xa0\x1c \n\u202f\u205f\u1680\u2028😀\u200b\ufeff\x00"), max_size=12
        )
    )
)
def test_white_space_is_what_python_takes_for_it(found: list[str]) -> None:
    texts = Texts.of(found)
    data, starts = collapse_white_space(texts.data, texts.offsets)
    plain = Texts(data, starts)
    assert [plain[i] for i in range(len(found))] == [" ".join(text.split()) for text in found]
    marks = fingerprints(texts.data, texts.offsets)
    assert len(set(marks.tolist())) == len(set(found)) and marks.dtype == np.uint64
