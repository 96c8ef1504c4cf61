"""A loader returns the order's samples, for any step, rank and number of streams."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.store.errors import ConfigError, StoreError
from stages.tokens import loader as loader_module
from stages.tokens.batch import rank_slots
from stages.tokens.documents_table import DOCUMENTS
from stages.tokens.loader import Loader
from stages.tokens.mapped import SlotsFullError
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.reader import STREAM, TokenReader
from stages.tokens.table import SCHEMA, SHARDS
from tests.stages.tokens.token_streams import EOS, S, sample, stream_tokens, write_shard, write_stream
from tests.support import examples

ROWS = {"a": 90, "b": 33, "c": 12}
PHASES = (
    Phase(96),
    Phase(48, rows_per_sample=2, weights={"a": 3.0, "b": 1.0}),
    Phase(24, rows_per_sample=4, weights={"a": 1.0}),
    Phase(192),
)
BATCH = 12
ROWS_PER_SAMPLE = [1] * 8 + [2] * 4 + [4] * 2 + [1] * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), ROWS)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "stream")


def build(folder: Path, rank: int = 0, ranks: int = 1, streams: int = 1) -> Loader:
    reader = TokenReader(folder)
    return Loader(reader, Order(reader.shards, "d", 1, PHASES, 2, streams), BATCH, rank, ranks)


def all_rows(loader: Loader) -> list[bytes]:
    return [loader[step].rows.tobytes() for step in range(len(loader))]


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[bytes]:
    """Every batch's rows, read in order."""
    return all_rows(build(folder))


@pytest.mark.parametrize("streams", [1, 3])
@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (1, 2), (4, 5), (3, 20)])
def test_batches_are_the_samples_of_the_order(folder: Path, streams: int, rank: int, ranks: int) -> None:
    loader = build(folder, rank, ranks, streams)
    assert len(loader) == 30
    for step in range(30):
        batch, positions = loader[step], loader.positions(step)
        assert (positions == step * BATCH + rank_slots(BATCH, rank, ranks, streams)).all()
        found = loader.order.at(positions)
        k = ROWS_PER_SAMPLE[step]
        assert batch.step == step and batch.rows.shape == (len(positions), k * S) and batch.rows.dtype == np.uint16
        assert [row.tolist() for row in batch.rows] == [sample(t, k).tolist() for t in found.triples.tolist()]
        assert batch.eos_id == EOS


@examples(20)
@given(st.lists(st.integers(0, 29), max_size=12))
def test_any_batch_in_any_order(folder: Path, expected: list[bytes], steps: list[int]) -> None:
    loader = build(folder)
    assert [loader[step].rows.tobytes() for step in steps] == [expected[step] for step in steps]


@pytest.mark.parametrize("first", [0, 1, 17, 29, 30])
def test_from_any_step_on(folder: Path, expected: list[bytes], first: int) -> None:
    loader = build(folder)
    assert [loader[step].rows.tobytes() for step in range(first, 30)] == expected[first:]


def test_runs_of_batches_do_not_change_the_batches(
    folder: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    at = Order.at
    monkeypatch.setattr(Order, "at", lambda self, positions: calls.append(len(positions)) or at(self, positions))
    assert all_rows(build(folder)) == expected
    assert calls[:3] == [
        12,
        48,
        36,
    ]  # one batch first, then four times as many, but never past a change of sample length
    monkeypatch.setattr(loader_module, "_MOST_POSITIONS", 36)
    assert all_rows(build(folder)) == expected


def test_a_run_of_more_shards_than_may_be_mapped(
    folder: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loader_module, "SLOTS", 4)
    monkeypatch.setattr(loader_module, "_MOST_POSITIONS", 1 << 20)
    loader, refused = build(folder, 1, 3), []
    locate = loader._mapped.locate

    def counted(*where: object) -> object:
        try:
            return locate(*where)
        except SlotsFullError as error:
            refused.append(error)
            raise

    monkeypatch.setattr(loader._mapped, "locate", counted)
    third = [rows[len(rows) // 3 : 2 * len(rows) // 3] for rows in expected]
    assert all_rows(loader) == third
    assert refused


def test_invalid_arguments_are_refused(folder: Path) -> None:
    reader = TokenReader(folder)
    order = Order(reader.shards, "d", 1, [Phase(24)], 2, streams=4)
    with pytest.raises(ConfigError, match="loader: global batch size 6 is not a positive multiple of 4 streams"):
        Loader(reader, order, 6)
    with pytest.raises(ConfigError, match="phase 0: 24 samples are not a multiple of the global batch size 16"):
        Loader(reader, order, 16)
    with pytest.raises(ConfigError, match="rank 2 is not in 0 to 1"):
        Loader(reader, order, 8, 2, 2)
    with pytest.raises(ConfigError, match="source 'c' has 12 samples of 1 rows for 16 streams"):
        Order(reader.shards, "d", 1, [Phase(16)], 2, streams=16)
    loader = Loader(reader, order, 8)
    for step in (-1, 3):
        with pytest.raises(IndexError):
            loader[step]


def test_after_a_damaged_shard_the_loader_still_works(copy: Path, expected: list[bytes]) -> None:
    path = copy / "shards/a/00002.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    loader = build(copy)
    with pytest.raises(StoreError, match="is truncated"):
        all_rows(loader)
    path.write_bytes(whole)
    assert all_rows(loader) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [("sequence_length", 0), ("eos_id", None), ("shard_rows", "16"), ("dtype", "int8"), ("vocabulary_size", True)],
)
def test_a_stream_that_is_not_one_is_named(copy: Path, name: str, value: object) -> None:
    info = json.loads((copy / STREAM).read_bytes())
    (copy / STREAM).write_text(json.dumps(info | {name: value}))
    with pytest.raises(StoreError, match=rf"{STREAM}: {name} is {value!r}"):
        TokenReader(copy)
    (copy / STREAM).write_text("[]")
    with pytest.raises(StoreError, match=f"{STREAM}: sequence_length is None"):
        TokenReader(copy)


def test_a_table_of_shards_that_is_not_whole_is_named(copy: Path) -> None:
    table = pq.read_table(copy / SHARDS)
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    pq.write_table(shuffled, copy / SHARDS)
    assert [rows.tolist() for rows in TokenReader(copy).shards.rows] == [[16] * 5 + [10], [16, 16, 1], [12]]
    for lines in (table.slice(1), pa.concat_tables([table, table.slice(0, 1)])):
        pq.write_table(lines, copy / SHARDS)
        with pytest.raises(StoreError, match=r"shard [01] of source 'a'"):
            TokenReader(copy)
    pq.write_table(table.drop_columns(["rows"]), copy / SHARDS)
    with pytest.raises(StoreError, match="column 'rows' is missing or has nulls"):
        TokenReader(copy)
    pq.write_table(pa.Table.from_pylist([], schema=SCHEMA), copy / SHARDS)
    assert TokenReader(copy).shards.sources == ()


def test_documents_of_another_corpus_are_refused(copy: Path) -> None:
    ends = np.flatnonzero(stream_tokens(2, ROWS["c"]) == EOS)
    lengths = np.diff(ends, prepend=-1) - 1
    lines = pq.read_table(copy / SHARDS).to_pylist()
    lines[-1]["tokens"] = int(ends[-1]) + 1
    pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), copy / SHARDS)
    names = [f"{number}" for number in range(len(lengths))]
    table = pa.table([names, names, names, ends - lengths, lengths, lengths], schema=DOCUMENTS)
    (copy / "docs").mkdir()
    write_shard(copy / "docs/c.arrow", table)
    assert len(TokenReader(copy).documents(2, 0, 0)) == int((ends < S).sum()) + 1
    for other in (table.slice(0, len(table) - 1), table.slice(0, 0)):
        write_shard(copy / "docs/c.arrow", other)
        with pytest.raises(StoreError, match=r"docs/c.arrow ends at token \d+ .* belongs to another stream"):
            TokenReader(copy).documents(2, 0, 0)


def test_loading_imports_no_slow_module(folder: Path) -> None:
    program = f"""
import sys
from stages.tokens.batch import model_inputs
from stages.tokens.loader import Loader
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.reader import TokenReader
reader = TokenReader({str(folder)!r})
model_inputs(Loader(reader, Order(reader.shards, "d", 1, [Phase(16)], 2), 16)[0].rows, reader.eos_id)
slow = "pandas torch tokenizers transformers fsspec pydantic pyarrow.dataset pyarrow.compute".split()
print([name for name in slow if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
