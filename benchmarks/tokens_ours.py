"""Headwater's side of `benchmarks/tokens.py`, one process per job."""

from __future__ import annotations

import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from child import Work, serve
from tokens_clock import memory, rows_per_second
from tokens_open import BATCH, SEED, headwater

ONE_ARRAY, PLAIN = "numpy, one array in memory", "numpy, the same output"
ENDLESS = 1 << 30
"""Samples of a run that does not end during the measurement."""
COMPARED = 8
TRACED = 50
CHUNK_SECONDS = 0.25
"""How long each side of a pair runs before the other one."""


def make_text(folder: str, base: str, megabytes: float, trained_on: float, seed: int) -> Work:
    """See `tokens_data` for this and the next two."""
    import tokens_data

    return lambda: tokens_data.make_text(Path(base), Path(folder), megabytes, trained_on, seed)


def make_rows(folder: str, rows: int) -> Work:
    """Rows that loaders read."""
    import tokens_data

    return lambda: tokens_data.make_rows(Path(folder), rows)


def make_table(folder: str, rows: int, step: int) -> Work:
    """The tables of a run that is too large to exist."""
    import tokens_data

    return lambda: tokens_data.make_table(Path(folder), rows, step)


def stage(store: str, corpus: str, tokenizer: str, threads: int) -> Work:
    """The tokens stage, from a corpus artifact and an existing tokenizer to a committed artifact in a new store.

    Result: `seconds`, `counts`, `digest`, and memory.
    """
    bound(threads)
    from stages.corpus.reading.listing import list_files
    from stages.store import Store
    from stages.store.artifact import load
    from stages.tokens import TokensConfig, tokens

    artifact = load(Store(store), corpus)
    assert artifact is not None, f"no corpus artifact {corpus} in {store}"
    config = TokensConfig(tokenizer=tokenizer, workers=threads)

    def work() -> dict[str, Any]:
        with tempfile.TemporaryDirectory(prefix="headwater-store-") as folder:
            began = time.perf_counter()
            inputs = {"corpus": artifact, "tokenizer": list_files(tokenizer)}
            built = tokens.run(config, inputs, Store(folder))
            seconds = time.perf_counter() - began
            return {"seconds": seconds, "counts": dict(built.manifest.counts), "digest": built.digest, **memory()}

    return work


def bound(threads: int) -> None:
    """Limits this process to that many cores, and the tokenizers' thread pools to as many threads."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["RAYON_NUM_THREADS"] = str(threads)


def loader(folder: str) -> Work:
    """The loader alone, ids as int64 tensors: `rows_per_second`, and memory after it."""
    import torch

    torch.set_num_threads(1)
    batches = headwater(Path(folder), ENDLESS)
    return lambda: {"rows_per_second": rows_per_second(lambda: len(next(batches))), **memory()}


def beside_numpy(folder: str) -> Work:
    """Ours and plain numpy alternately in one process, each for `CHUNK_SECONDS` per round.

    Before the measurement, outputs are compared: the loader's rows with the arrays', its batch with plain numpy's.
    Result: `rates`, name -> rows per second.
    """
    import numpy as np
    import torch
    from tokens_data import EOS_ID
    from tokens_numpy import MEMMAP, open_maps, plain_batch

    torch.set_num_threads(1)
    root = Path(folder)
    maps = open_maps(root / "npy")
    one = np.concatenate(maps)
    _compare(root, one)
    order = np.random.default_rng(SEED).permutation(len(one))
    shard, row = np.divmod(order, len(maps[0]))
    places = itertools.cycle(slice(at, at + BATCH) for at in range(0, len(order) - BATCH + 1, BATCH))
    ids, batches = headwater(root, ENDLESS), headwater(root, ENDLESS, full=True)

    def memmap(read: Callable[..., Any]) -> Callable[[], int]:
        def step() -> int:
            at = next(places)
            return len(torch.from_numpy(read(maps, shard[at], row[at])))

        return step

    def plain() -> int:
        inputs, *_ = (torch.from_numpy(part) for part in plain_batch(one, order[next(places)], EOS_ID))
        return len(inputs)

    contenders: dict[str, Callable[[], int]] = {
        "ids": lambda: len(next(ids)),
        **{name: memmap(read) for name, read in MEMMAP.items()},
        ONE_ARRAY: lambda: len(torch.from_numpy(one[order[next(places)]].astype(np.int64))),
        "batch": lambda: len(next(batches)[0]),
        PLAIN: plain,
    }

    def work() -> dict[str, Any]:
        return {"rates": {name: rows_per_second(step, CHUNK_SECONDS) for name, step in contenders.items()}}

    return work


def _compare(root: Path, one: Any) -> None:
    """Compares some batches of ours with the array's rows, and inputs and targets with plain numpy's."""
    import numpy as np
    from tokens_data import EOS_ID, SHARD_ROWS, table_order
    from tokens_numpy import plain_batch

    from stages.tokens.table import ShardTable

    order = table_order(ShardTable.load(root / "stream"), ENDLESS)
    ids = headwater(root, ENDLESS, tensors=False)
    batches = headwater(root, ENDLESS, full=True, tensors=False)
    for step in range(COMPARED):
        where = order.at(np.arange(step * BATCH, (step + 1) * BATCH))
        rows = where.shard * SHARD_ROWS + where.row
        np.testing.assert_array_equal(next(ids), one[rows])
        for mine, plain in zip(next(batches), plain_batch(one, rows, EOS_ID), strict=True):
            np.testing.assert_array_equal(mine, plain)


def trace(folder: str, samples: int) -> Work:
    """From batches to documents and back, over the tables of a very large run whose shards do not exist.

    Before the measurement, a few documents are traced to their positions and back.
    Result: milliseconds: `open` (loading tables and order), `at` and `where`, one each of `TRACED` at random.
    """
    import numpy as np
    from tokens_data import table_order

    from stages.tokens.order import Order
    from stages.tokens.reader import TokenReader
    from stages.tokens.table import ShardTable
    from stages.tokens.trace import documents_at, find_documents, samples_of

    stream = Path(folder) / "stream"
    draw = np.random.default_rng(SEED)

    def opened() -> tuple[Order, TokenReader]:
        return table_order(ShardTable.load(stream), samples), TokenReader(stream)

    order, reader = opened()
    names = [_small_document(reader, draw) for _ in range(TRACED)]
    for name in names[:COMPARED]:
        seen = samples_of(order, reader, find_documents(reader, name))
        assert seen, f"no step reads document {name}"
        for line in seen:
            assert name in {found.doc_id for found in documents_at(order, reader, [line.position])}, (name, line)

    def work() -> dict[str, Any]:
        began = time.perf_counter()
        order, reader = opened()
        spent: dict[str, Any] = {"open": 1000 * (time.perf_counter() - began), "at": [], "where": []}
        for name in names:
            first = int(draw.integers(samples // BATCH)) * BATCH
            began = time.perf_counter()
            documents_at(order, reader, np.arange(first, first + BATCH))
            spent["at"].append(1000 * (time.perf_counter() - began))
            began = time.perf_counter()
            samples_of(order, reader, find_documents(reader, name))
            spent["where"].append(1000 * (time.perf_counter() - began))
        return spent

    return work


def _small_document(reader: Any, draw: Any) -> str:
    """The id of a document of 1,000 tokens: every second one."""
    source = int(draw.integers(len(reader.shards.sources)))
    document = int(draw.integers(reader.document_count(source) // 2)) * 2
    return str(reader.document(source, document).doc_id)


if __name__ == "__main__":
    serve({job.__name__: job for job in (make_text, make_rows, make_table, stage, loader, beside_numpy, trace)})
