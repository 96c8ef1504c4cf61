"""A loader gives the order's samples, from any step on, and goes on from its state exactly."""

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
from stages.tokens.batch import model_inputs, rank_positions
from stages.tokens.documents_table import DOCUMENTS
from stages.tokens.loader import Loader
from stages.tokens.mapped import SlotsFullError
from stages.tokens.order import Order, Phase
from stages.tokens.reader import STREAM, TokenReader
from stages.tokens.table import SCHEMA, SHARDS
from tests.stages.tokens.token_streams import EOS, S, sample, stream_tokens, write_shard, write_stream
from tests.support import examples

ROWS = {"a": 90, "b": 33, "c": 12}
PHASES = (Phase(96), Phase(48, k=2, weights={"a": 3.0, "b": 1.0}), Phase(24, k=4, weights={"a": 1.0}), Phase(192))
BATCH = 12
K_OF_STEP = [1] * 8 + [2] * 4 + [4] * 2 + [1] * 16


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stream(tmp_path_factory.mktemp("stream"), ROWS)


@pytest.fixture
def copy(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / "stream")


def build(folder: Path, rank: int = 0, ranks: int = 1, lanes: int = 1, **options: object) -> Loader:
    reader = TokenReader(folder)
    return Loader(reader, Order(reader.shards, "d", 1, PHASES, 2, lanes), BATCH, rank, ranks, **options)


@pytest.fixture(scope="module")
def expected(folder: Path) -> list[bytes]:
    """Every batch's rows, from a loader that goes through them all."""
    return [batch.rows.tobytes() for batch in build(folder)]


@pytest.mark.parametrize("lanes", [1, 3])
@pytest.mark.parametrize(("rank", "ranks"), [(0, 1), (1, 2), (4, 5), (3, 20)])
def test_batches_are_the_samples_of_the_order(folder: Path, lanes: int, rank: int, ranks: int) -> None:
    loader = build(folder, rank, ranks, lanes)
    assert len(loader) == 30
    for step, batch in enumerate(loader):
        positions = rank_positions(step, BATCH, rank, ranks, lanes)
        found = loader.order.at(positions)
        k = K_OF_STEP[step]
        assert batch.step == step and batch.rows.shape == (len(positions), k * S) and batch.rows.dtype == np.uint16
        assert [row.tolist() for row in batch.rows] == [sample(t, k).tolist() for t in found.triples.tolist()]
        assert batch.ids.dtype == np.int64 and (batch.ids == batch.rows).all()
        made, expected = batch.model_inputs(), model_inputs(batch.rows, EOS)
        for name in ("inputs", "targets", "positions", "cu_seqlens"):
            assert (getattr(made, name) == getattr(expected, name)).all()
    assert step == 29


@examples(20)
@given(st.lists(st.integers(0, 29), max_size=12))
def test_any_batch_in_any_order(folder: Path, expected: list[bytes], steps: list[int]) -> None:
    loader = build(folder)
    assert [loader[step].rows.tobytes() for step in steps] == [expected[step] for step in steps]


@pytest.mark.parametrize("step", [0, 1, 17, 29, 30])
def test_from_any_step_on(folder: Path, expected: list[bytes], step: int) -> None:
    assert [batch.rows.tobytes() for batch in build(folder, step=step)] == expected[step:]


@examples(12)
@given(st.integers(0, 30), st.integers(0, 30))
def test_from_a_state_on_as_if_never_stopped(folder: Path, expected: list[bytes], first: int, second: int) -> None:
    skip = [(3, 5), (9, 10), (28, 40)]
    found: list[tuple[int, bytes]] = []
    state = build(folder).state_dict()
    for count in (first, second, 31):
        loader = build(folder, skip=skip)
        loader.load_state_dict(json.loads(json.dumps(state)))
        for _, batch in zip(range(count), loader, strict=False):
            found.append((batch.step, batch.rows.tobytes()))
        state = loader.state_dict()
    assert found == [(step, expected[step]) for step in range(28) if step not in (3, 4, 9)]
    assert state == {"position": 360, "skipped": [[3, 5], [9, 10], [28, 40]]}


def test_stretches_do_not_change_what_comes(
    folder: Path, expected: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    at = Order.at
    monkeypatch.setattr(Order, "at", lambda self, positions: calls.append(len(positions)) or at(self, positions))
    assert [batch.rows.tobytes() for batch in build(folder)] == expected
    assert calls[:3] == [12, 48, 36]  # one batch first, then four times as many, but never past a change of k
    monkeypatch.setattr(loader_module, "_MOST_POSITIONS", 36)
    assert [batch.rows.tobytes() for batch in build(folder)] == expected


def test_a_stretch_of_more_shards_than_may_be_mapped(
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
    assert [batch.rows.tobytes() for batch in loader] == third
    assert refused


def test_what_cannot_be_is_refused(folder: Path) -> None:
    reader = TokenReader(folder)
    order = Order(reader.shards, "d", 1, [Phase(24)], 2, lanes=4)
    with pytest.raises(ConfigError, match="batch: 6 is not a multiple of the 4 lanes"):
        Loader(reader, order, 6)
    with pytest.raises(ConfigError, match="phase 0: 24 samples are not whole batches of 16"):
        Loader(reader, order, 16)
    with pytest.raises(ConfigError, match="rank 2 of 2"):
        Loader(reader, order, 8, 2, 2)
    with pytest.raises(ConfigError, match="step 4 of a run with 3"):
        Loader(reader, order, 8, step=4)
    with pytest.raises(ConfigError, match="source 'c' has 12 samples at k = 1 for 16 lanes"):
        Order(reader.shards, "d", 1, [Phase(16)], 2, lanes=16)
    loader = Loader(reader, order, 8)
    with pytest.raises(ConfigError, match="position 12 lies within a batch of 8"):
        loader.load_state_dict({"position": 12, "skipped": []})
    for step in (-1, 3):
        with pytest.raises(IndexError):
            loader[step]


def test_after_a_damaged_shard_the_loader_still_works(copy: Path) -> None:
    path = copy / "shards/a/00002.arrow"
    whole = path.read_bytes()
    path.write_bytes(whole[:-8])
    loader = build(copy)
    with pytest.raises(StoreError, match="cut short"):
        list(loader)
    step = loader.step
    path.write_bytes(whole)
    assert [batch.step for batch in loader] == list(range(step, 30))


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
    with pytest.raises(StoreError, match="no whole column 'rows'"):
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


def test_loading_imports_nothing_slow(folder: Path) -> None:
    program = f"""
import sys
from stages.tokens.loader import Loader
from stages.tokens.order import Order, Phase
from stages.tokens.reader import TokenReader
reader = TokenReader({str(folder)!r})
next(Loader(reader, Order(reader.shards, "d", 1, [Phase(16)], 2), 16)).model_inputs()
slow = "pandas torch tokenizers transformers fsspec pydantic pyarrow.dataset pyarrow.compute".split()
print([name for name in slow if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
