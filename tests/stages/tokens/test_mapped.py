"""One array over all shards gives the files' rows, however few shards it may map, and refuses damaged ones."""

from __future__ import annotations

import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store.errors import StoreError
from stages.tokens.fetch import LocalFetch
from stages.tokens.mapped import SlotsFullError
from stages.tokens.reader import TokenReader
from tests.stages.tokens.token_streams import S, sample, write_shard, write_stream
from tests.support import examples

ROWS = {"a": 90, "b": 33, "c": 5}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), ROWS)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "stream")


def every(reader: TokenReader, k: int = 1) -> np.ndarray:
    rows = reader.shards.rows
    return np.array([(s, i, r) for s in range(3) for i, n in enumerate(rows[s]) for r in range(0, n - k + 1)])


@pytest.mark.parametrize("k", [1, 2, 4])
@pytest.mark.parametrize("slots", [1, 2, 3, 100])
def test_rows_are_those_of_the_files(folder: Path, k: int, slots: int) -> None:
    reader = TokenReader(folder)
    mapped = reader.mapped(slots)
    triples = every(reader, k)
    np.random.default_rng(slots).shuffle(triples)
    for part in np.array_split(triples, 5):
        found = mapped.gather(*part.T, k)
        assert found.dtype == np.uint16 and found.shape == (len(part), k * S) and found.flags.owndata | (k > 1)
        for line, triple in zip(found, part.tolist(), strict=True):
            assert (line == sample(triple, k)).all()


@examples(50)
@given(st.integers(1, 6), st.lists(st.lists(st.integers(0, 127), min_size=1, max_size=12), max_size=8))
def test_slots_are_reused(folder: Path, slots: int, calls: list[list[int]]) -> None:
    reader = TokenReader(folder)
    mapped, triples = reader.mapped(slots), every(reader)
    for call in calls:
        part = triples[call]
        shards = {(s, i) for s, i, _ in part.tolist()}
        if len(shards) > mapped.slots:
            with pytest.raises(SlotsFullError):
                mapped.locate(*part.T)
        else:
            found = mapped.take(mapped.locate(*part.T))
            assert (found == [sample(triple) for triple in part.tolist()]).all()
        assert (mapped.gather(*part.T) == reader.batch(part)).all()


def test_uint32_tokens(tmp_path: Path) -> None:
    reader = TokenReader(write_stream(tmp_path, {"a": 40}, "uint32"))
    assert reader.mapped().gather(*np.array([[0, 2, 1]]).T).dtype == np.uint32
    assert (reader.batch([(0, 2, 1)])[0] == sample((0, 2, 1))).all()


@pytest.mark.parametrize("triple", [(0, 6, 0), (0, 5, 10), (0, -1, 0), (2, 0, -1), (1, 0, 16)])
def test_missing_rows_are_refused(folder: Path, triple: tuple[int, int, int]) -> None:
    with pytest.raises(IndexError):
        TokenReader(folder).batch([(0, 0, 0), triple])


def test_a_sample_never_crosses_a_shard(folder: Path) -> None:
    with pytest.raises(IndexError):
        TokenReader(folder).batch([(0, 0, 15)], 2)


def test_no_file_stays_open_and_the_range_is_unmapped(folder: Path) -> None:
    def maps() -> int:
        return sum(".arrow" in line for line in Path("/proc/self/maps").read_text().splitlines())

    reader = TokenReader(folder)
    before, mapped_before = len(os.listdir("/proc/self/fd")), maps()
    mapped = reader.mapped()
    mapped.gather(*every(reader).T)
    assert len(os.listdir("/proc/self/fd")) == before
    assert maps() >= mapped_before + 10
    del mapped
    assert maps() == mapped_before


def test_a_shard_is_opened_once_and_may_be_removed_after(copy: Path) -> None:
    asked: list[tuple[str, int]] = []

    class Once(LocalFetch):
        def __call__(self, source: str, shard: int) -> Path:
            asked.append((source, shard))
            return super().__call__(source, shard)

    reader = TokenReader(copy, fetch=Once(copy))
    mapped, triples = reader.mapped(), every(reader)
    mapped.gather(*triples.T)
    shutil.rmtree(copy / "shards")
    assert (mapped.gather(*triples.T) == [sample(triple) for triple in triples.tolist()]).all()
    assert sorted(asked) == sorted(set(asked)) and len(asked) == 6 + 3 + 1


def test_threads_share_few_slots(folder: Path) -> None:
    reader = TokenReader(folder)
    mapped, triples, wrong = reader.mapped(2), every(reader), []

    def work(seed: int) -> None:
        part = np.random.default_rng(seed).permutation(triples)[:40]
        for _ in range(20):
            if not (mapped.gather(*part.T) == [sample(triple) for triple in part.tolist()]).all():
                wrong.append(seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_shards_whose_rows_begin_elsewhere(copy: Path) -> None:
    """As another release of Arrow may write them: with more in the header."""
    path = copy / "shards/a/00001.arrow"
    table = pa.ipc.open_file(path.read_bytes()).read_all()
    write_shard(path, table.replace_schema_metadata({"note": "x" * 200}))
    reader = TokenReader(copy)
    reader.shards.bytes[0][1] = path.stat().st_size
    triples = every(reader)
    assert (reader.batch(triples) == [sample(triple) for triple in triples.tolist()]).all()


def rows(count: int, length: int, kind: pa.DataType) -> pa.Table:
    items = pa.array(np.ones(count * length, dtype=np.int64)).cast(kind)
    return pa.table({"tokens": pa.FixedSizeListArray.from_arrays(items, length)})


DAMAGES = {
    "truncated: ": lambda path: os.truncate(path, path.stat().st_size - 100),
    "too long: ": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "cannot read": lambda path: path.write_bytes(path.read_bytes()[::-1]),
    "No such file": lambda path: path.unlink(),
    "has 7 rows, but `rows`": lambda path: write_shard(path, rows(7, S, pa.uint16())),
    r"tokens: fixed_size_list<item: uint32>\[32\].*`dtype`": lambda path: write_shard(path, rows(16, S, pa.uint32())),
    r"tokens: fixed_size_list<item: uint16>\[16\].*`sequence_length`": lambda path: write_shard(
        path, rows(16, 16, pa.uint16())
    ),
    "has 2 record batches": lambda path: write_shard(
        path, pa.concat_tables([rows(8, S, pa.uint16()), rows(8, S, pa.uint16())])
    ),
    "compressed": lambda path: write_shard(
        path, rows(16, S, pa.uint16()), options=pa.ipc.IpcWriteOptions(compression="zstd")
    ),
}


@pytest.mark.parametrize("message", DAMAGES)
def test_damaged_shards_are_named(copy: Path, message: str) -> None:
    path = copy / "shards/a/00002.arrow"
    DAMAGES[message](path)
    reader = TokenReader(copy)
    if path.exists() and ":" not in message[-2:]:  # a file that was changed may have a changed table too
        reader.shards.bytes[0][2] = path.stat().st_size
    mapped = reader.mapped()
    for read in (lambda: mapped.gather(*np.array([[0, 1, 0], [0, 2, 3]]).T), lambda: reader.shard(0, 2)):
        with pytest.raises(StoreError, match=message) as error:
            read()
        assert str(path) in str(error.value)
    assert (mapped.gather(*np.array([[0, 1, 0]]).T)[0] == sample((0, 1, 0))).all()  # the others can still be read
