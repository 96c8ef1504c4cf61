"""Token streams written by hand, in which a token says where it lies: no corpus and no tokenizer needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.tokens.reader import STREAM
from stages.tokens.shards import ShardWriter
from stages.tokens.table import SCHEMA, SHARDS

S = 32
SHARD_ROWS = 16
EOS = 0


def stream_tokens(source: int, rows: int) -> NDArray[np.uint32]:
    """uint32 [rows * S]: numbers that repeat nowhere near each other, with an EOS here and there."""
    place = np.arange(rows * S, dtype=np.uint64) + np.uint64(source * 7919)
    tokens = (place * np.uint64(48271) % np.uint64(60_000) + np.uint64(1)).astype(np.uint32)
    tokens[place % np.uint64(23) == 0] = EOS
    return tokens


def write_stream(
    folder: Path, rows: Mapping[str, int], dtype: str = "uint16", part: str = "", shard_rows: int = SHARD_ROWS
) -> Path:
    """Writes shards, their table and `stream.json`; sources are numbered as given, so give them by name."""
    (folder / part).mkdir(parents=True, exist_ok=True)
    lines: list[dict[str, object]] = []

    def new_file(path: str) -> Path:
        found = folder / part / path
        found.parent.mkdir(parents=True, exist_ok=True)
        return found

    for number, (name, count) in enumerate(rows.items()):
        writer = ShardWriter(new_file, name, S, shard_rows, np.dtype(dtype), EOS)
        writer.add(stream_tokens(number, count).astype(dtype))
        writer.close()
        lines += writer.lines
    pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), folder / part / SHARDS)
    info = {"sequence_length": S, "vocabulary_size": 60_001, "eos_id": EOS, "shard_rows": shard_rows, "dtype": dtype}
    (folder / STREAM).write_text(json.dumps(info))
    return folder


def sample(triple: Sequence[int], k: int = 1, shard_rows: int = SHARD_ROWS) -> NDArray[np.uint32]:
    """What a sample must hold: uint32 [k * S]."""
    source, shard, row = triple
    first = shard * shard_rows + row
    return stream_tokens(source, first + k)[first * S :]
