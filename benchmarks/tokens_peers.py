"""The rivals' side of `benchmarks/tokens.py`, a job a process: gigatoken, MosaicML Streaming, LitData, HF datasets.

Each reads the same rows in an order of its own, in batches of 16 that end as one int64 tensor, with the collation that
costs it least. Nothing here imports
Headwater.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tokens_open
from child import Work, serve
from tokens_clock import memory, rows_per_second

CHUNK_BYTES = 1 << 26
"""Of a rival's own files: as large as our shards."""


def gigatoken(store: str, corpus: str, tokenizer: str, threads: int) -> Work:
    """`encode_batch` of all texts in one call, which is its fastest, from Python strings in memory; the tokenizer is
    fresh each time, its cache empty.

    Result: `seconds`, `tokens`, and memory.
    """
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    import pyarrow.parquet as pq
    from gigatoken import Tokenizer

    files = sorted((Path(store) / corpus / "documents").rglob("*.parquet"))
    texts = [text for file in files for text in pq.read_table(file, columns=["text"])["text"].to_pylist()]
    path = Path(tokenizer) / "tokenizer.json"
    Tokenizer(path).encode_batch(texts[:200])

    def work() -> dict[str, Any]:
        encoder = Tokenizer(path)
        began = time.perf_counter()
        found = encoder.encode_batch(texts)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "tokens": len(found.layout.content), **memory()}

    return work


def make_streaming(folder: str) -> Work:
    """Writes the rows as MDS."""
    import streaming

    def work() -> dict[str, Any]:
        columns = {"tokens": f"ndarray:uint16:{_arrays(folder)[0].shape[1]}"}
        with streaming.MDSWriter(out=str(Path(folder) / "mds"), columns=columns, size_limit=CHUNK_BYTES) as writer:
            for array in _arrays(folder):
                for row in array:
                    writer.write({"tokens": row})
        return {}

    return work


def make_litdata(folder: str) -> Work:
    """Writes the rows as LitData's stream of tokens."""
    import litdata

    def work() -> dict[str, Any]:
        inputs = [
            (str(path), first)
            for path in sorted((Path(folder) / "npy").glob("*.npy"))
            for first in range(0, len(np.load(path, mmap_mode="r")), LITDATA_ITEM_ROWS)
        ]
        loader = litdata.TokensLoader(block_size=_arrays(folder)[0].shape[1])
        litdata.optimize(
            fn=litdata_item,
            inputs=inputs,
            output_dir=str(Path(folder) / "litdata"),
            chunk_bytes=CHUNK_BYTES,
            item_loader=loader,
            num_workers=1,
        )
        loader = tokens_open.litdata_loader(Path(folder))
        next(iter(loader))
        (Path(folder) / "litdata.json").write_text(json.dumps(loader.state_dict()))
        return {}

    return work


LITDATA_ITEM_ROWS = 1024


def litdata_item(where: tuple[str, int]) -> Iterator[Any]:
    """Some of the rows as one tensor (LitData's worker processes ask for it by name)."""
    import torch

    path, first = where
    part = np.load(path, mmap_mode="r")[first : first + LITDATA_ITEM_ROWS]
    yield torch.from_numpy(part.ravel().copy())


def make_hf(folder: str) -> Work:
    """Writes the rows as a saved dataset of fixed-length lists, as many files as there are shards."""
    import datasets
    import pyarrow as pa

    def work() -> dict[str, Any]:
        columns = [pa.FixedSizeListArray.from_arrays(pa.array(a.ravel()), a.shape[1]) for a in _arrays(folder)]
        table = pa.table({"tokens": pa.chunked_array(columns)})
        datasets.Dataset(table).save_to_disk(str(Path(folder) / "hf"), num_shards=len(columns))
        return {}

    return work


def streaming(folder: str, workers: int) -> Work:
    """MosaicML Streaming; see `tokens_open` for this and the next ones."""
    return _reading(tokens_open.streaming(Path(folder), workers=workers))


def litdata(folder: str, workers: int) -> Work:
    """LitData."""
    return _reading(tokens_open.litdata(Path(folder), workers=workers))


def hf_loader(folder: str, workers: int) -> Work:
    """Hugging Face datasets under a DataLoader."""
    return _reading(tokens_open.hf_loader(Path(folder), workers=workers))


def hf_indices(folder: str) -> Work:
    """Hugging Face datasets asked for lists of rows."""
    return _reading(tokens_open.hf_indices(Path(folder)))


def _reading(batches: Iterator[Any]) -> Work:
    """Reads on and on; result: `rows_per_second`, and memory after it."""
    import torch

    torch.set_num_threads(1)
    first = next(batches)
    assert first.dtype == torch.int64 and first.shape[0] == tokens_open.BATCH, (first.dtype, first.shape)
    return lambda: {"rows_per_second": rows_per_second(lambda: len(next(batches))), **memory()}


def _arrays(folder: str) -> list[Any]:
    return [np.load(path, mmap_mode="r") for path in sorted((Path(folder) / "npy").glob("*.npy"))]


if __name__ == "__main__":
    jobs = (gigatoken, make_streaming, make_litdata, make_hf, streaming, litdata, hf_loader, hf_indices)
    serve({job.__name__: job for job in jobs})
