"""Token streams written by hand, in which a token encodes its place: no corpus and no tokenizer needed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.tokens.reader import STREAM
from stages.tokens.table import SCHEMA, SHARDS

S = 32
SHARD_ROWS = 16
EOS = 0


def stream_tokens(source: int, rows: int) -> NDArray[np.uint32]:
    """uint32 [rows * S]: numbers that do not repeat nearby, with an EOS every 23 tokens."""
    place = np.arange(rows * S, dtype=np.uint64) + np.uint64(source * 7919)
    tokens = (place * np.uint64(48271) % np.uint64(60_000) + np.uint64(1)).astype(np.uint32)
    tokens[place % np.uint64(23) == 0] = EOS
    return tokens


def write_stream(
    folder: Path, rows: Mapping[str, int], dtype: str = "uint16", part: str = "", shard_rows: int = SHARD_ROWS
) -> Path:
    """Writes shards, their table and `stream.json`; sources are numbered as given, so give them by name."""
    lines: list[dict[str, object]] = []
    for number, (name, count) in enumerate(rows.items()):
        whole = stream_tokens(number, count).astype(dtype)
        for shard, first in enumerate(range(0, count, shard_rows)):
            tokens = whole[first * S : (first + shard_rows) * S]
            path = folder / part / f"shards/{name}/{shard:05}.arrow"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_shard(path, pa.table({"tokens": pa.FixedSizeListArray.from_arrays(pa.array(tokens), S)}))
            line = {"source": name, "number": shard, "rows": len(tokens) // S, "tokens": len(tokens)}
            lines.append(line | {"bytes": path.stat().st_size, "sha256": ""})
    pq.write_table(pa.Table.from_pylist(lines, schema=SCHEMA), folder / part / SHARDS)
    info = {"sequence_length": S, "vocabulary_size": 60_001, "eos_id": EOS, "shard_rows": shard_rows, "dtype": dtype}
    (folder / STREAM).write_text(json.dumps(info))
    return folder


def write_shard(path: Path, table: pa.Table, **options: object) -> None:
    """Writes an Arrow file with a record batch for each chunk of the table."""
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema, **options) as writer:
        for batch in table.to_batches():
            writer.write_batch(batch)


def sample(triple: Sequence[int], k: int = 1, shard_rows: int = SHARD_ROWS) -> NDArray[np.uint32]:
    """What a sample must hold: uint32 [k * S]."""
    source, shard, row = triple
    first = shard * shard_rows + row
    return stream_tokens(source, first + k)[first * S :]
