"""Exact copies and repeated ids, in one round or in many; rows and chunks."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from stages.corpus.chunks import Chunk, by_chunk, identities, row_offsets
from stages.corpus.dedup.exact import count_repeats, first_copies
from stages.corpus.tables import RowFiles, read_chunk, write_chunk

hashes = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2)), max_size=30)


@given(hashes, st.integers(0, 30), st.sampled_from([1, 200, 1 << 30]))
def test_the_first_of_equal_hashes_stays(found: list[tuple[int, int]], cut: int, memory: int) -> None:
    array = np.array(found, np.uint64).reshape(-1, 2)
    survivor = first_copies(len(found), lambda: iter([array[:cut], array[cut:]]), memory)
    for i, one in enumerate(found):
        first = found.index(one)
        assert survivor[i] == (-1 if first == i or one == (0, 0) else first)


@given(st.lists(st.integers(0, 6), max_size=30), st.sampled_from([1, 1 << 30]))
def test_repeats_are_what_stood_before(found: list[int], memory: int) -> None:
    array = np.array(found, np.uint64)
    again = count_repeats(lambda: iter([array[:5], array[5:]]), len(found), memory)
    assert again == len(found) - len(set(found))


def test_a_million_copies_are_a_matter_of_one_sort() -> None:
    array = np.ones((1_000_000, 2), np.uint64)
    survivor = first_copies(len(array), lambda: iter([array]), 16 << 20)
    assert survivor[0] == -1 and (survivor[1:] == 0).all()


def test_rows_lead_to_documents(tmp_path: Path) -> None:
    chunks = []
    for n, (source, documents) in enumerate([("a", 3), ("a", 2), ("b", 4)]):
        table = pa.table(
            {
                "doc_id": [f"{source}{n}{i}" for i in range(documents)],
                "file": ["x.jsonl"] * documents,
                "file_range": pa.array([0, *[1] * (documents - 1)], pa.int32()),
                "record": pa.array(range(1, documents + 1), pa.int64()),
                "span": ["", *[f"{i}1-{i}9" for i in range(1, documents)]],
                "other": ["not read"] * documents,
            }
        )
        write_chunk(table, tmp_path / f"{n}.arrow")
        chunks.append(Chunk(f"{n}.arrow", source, documents, (10 * n, 100)))
    assert row_offsets(chunks).tolist() == [0, 3, 5, 9]
    assert [(n, s.start, s.stop) for n, s in by_chunk(np.array([0, 2, 6, 8]), row_offsets(chunks))] == [
        (0, 0, 2),
        (2, 2, 4),
    ]
    who = identities(np.array([0, 2, 6, 8]), chunks, tmp_path)
    assert who["doc_id"].to_pylist() == ["a00", "a02", "b21", "b23"]
    assert who["where"].to_pylist() == [
        "a/x.jsonl#1", "a/x.jsonl#103:21-29", "b/x.jsonl#102:11-19", "b/x.jsonl#104:31-39"
    ]  # fmt: skip
    assert len(identities(np.empty(0, np.int64), chunks, tmp_path)) == 0
    assert read_chunk(tmp_path / "0.arrow", ["record", "doc_id"]).column_names == ["record", "doc_id"]


@given(st.lists(st.integers(0, 9000), max_size=6))
def test_files_are_cut_by_the_number_of_rows_alone(sizes: list[int]) -> None:

    schema = pa.schema([("n", pa.int64())])
    with tempfile.TemporaryDirectory() as name:
        files = RowFiles(schema, lambda number: Path(name) / f"{number}.parquet")
        values = pa.array(range(sum(sizes)), pa.int64())
        start = 0
        for size in sizes:
            files.add(pa.table({"n": values.slice(start, size)}))
            start += size
        files.close()
        written = [pq.read_table(Path(name) / f"{number}.parquet")["n"].to_pylist() for number in range(files.files)]
        assert [n for part in written for n in part] == list(range(sum(sizes)))
        groups = [pq.ParquetFile(Path(name) / f"{n}.parquet").metadata for n in range(files.files)]
        rows = [meta.row_group(i).num_rows for meta in groups for i in range(meta.num_row_groups)]
        assert all(n == 4096 for n in rows[:-1])
