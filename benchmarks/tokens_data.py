"""What `benchmarks/tokens.py` measures on: a corpus of text with a tokenizer, token rows, and a table of 10^9 rows.

Token streams are written here in the format that DESIGN gives, not by the stage that is measured: random ids with an
EOS every `DOCUMENT_TOKENS` are as good to a loader as text, and 10^9 rows would not fit on a disk.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from corpus_data import Corpus, make_corpus, read_records
from numpy.typing import NDArray
from tokens_open import BATCH, DIGEST, SEED, WINDOW

from stages.corpus.tables import DOCUMENTS, ROWS_PER_GROUP
from stages.store import Artifact, ArtifactWriter, Store
from stages.tokens.order import Order
from stages.tokens.phase import Phase
from stages.tokens.table import SCHEMA, SHARDS, ShardTable
from stages.tokens.tokenizer import train

SEQUENCE, SHARD_ROWS, VOCABULARY, EOS_ID = 2048, 16384, 16384, 0
DOCUMENT_TOKENS = 600
"""Tokens of a document with its EOS in the rows that loaders read: about what MedQuAD's have."""
FILES = 4
"""Parquet files of the corpus."""


def make_text(base: Path, folder: Path, megabytes: float, trained_on: float, seed: int) -> dict[str, Any]:
    """A corpus artifact as the corpus stage writes them, and a 16k BPE trained on its first megabytes.

    Returns where they are: `store`, `corpus` (its folder in the store), `tokenizer`; and `documents`, `megabytes`.
    """
    corpus, _ = make_corpus(base, folder / "corpus.jsonl", megabytes, seed)
    records = read_records(corpus.path)
    artifact = _corpus_artifact(Store(folder / "store"), corpus, records)
    tokenizer = train([[record["text"] for record in records[: _first(records, trained_on)]]], VOCABULARY)
    for name, content in tokenizer.files(SEQUENCE).items():
        path = folder / "tokenizer" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    corpus.path.unlink()
    return {
        "store": str(folder / "store"),
        "corpus": artifact.folder,
        "tokenizer": str(folder / "tokenizer"),
        "documents": corpus.documents,
        "megabytes": corpus.megabytes,
    }


def _first(records: Sequence[dict[str, Any]], megabytes: float) -> int:
    sizes = np.cumsum([len(record["text"].encode()) for record in records])
    return int(np.searchsorted(sizes, megabytes * 1e6)) + 1


def _corpus_artifact(store: Store, corpus: Corpus, records: Sequence[dict[str, Any]]) -> Artifact:
    name = f"{corpus.bytes:016x}"
    writer = ArtifactWriter(store, f"corpus/{name}", "corpus", 1, name * 4, {}, {})
    bounds = [len(records) * number // FILES for number in range(FILES + 1)]
    for number in range(FILES):
        first, part = bounds[number], records[bounds[number] : bounds[number + 1]]
        count = len(part)
        # ids spread as hashes do: the index over them is sorted in the measured time.
        spread = np.random.default_rng([SEED, number]).bytes(16 * count)
        columns: dict[str, Any] = {
            "doc_id": [spread[16 * i : 16 * i + 16].hex() for i in range(count)],
            "text": [record["text"] for record in part],
            "text_hash": [spread[16 * i : 16 * i + 16].hex() for i in range(count)],
            "source": ["text"] * count,
            "uri": [f"corpus.jsonl#record={first + i}" for i in range(count)],
            "license": [record["license"] for record in part],
            "retrieved_at": [""] * count,
            "language": ["en"] * count,
            "group": [record["focus"] for record in part],
            "scores": [None] * count,
            "steps": [["filters"]] * count,
        }
        table = pa.table([pa.array(columns[field.name], field.type) for field in DOCUMENTS], schema=DOCUMENTS)
        path = writer.file(f"documents/text/{number:05}.parquet")
        pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, compression="zstd")
    return writer.commit()


def make_rows(folder: Path, rows: int) -> dict[str, Any]:
    """Random token rows twice: `stream/`, as a tokens artifact has them, and `npy/`, a plain array a shard."""
    (folder / "npy").mkdir(parents=True)
    draw = np.random.default_rng(SEED)
    sizes = _shard_sizes(rows)
    for number, size in enumerate(sizes):
        tokens = draw.integers(1, VOCABULARY, size * SEQUENCE, dtype=np.uint16)
        place = np.arange(len(tokens)) + number * SHARD_ROWS * SEQUENCE
        tokens[(place + 1) % DOCUMENT_TOKENS == 0] = EOS_ID
        if number == len(sizes) - 1:
            tokens[-1] = EOS_ID
        np.save(folder / "npy" / f"{number:05}.npy", tokens.reshape(size, SEQUENCE))
        _write_shard(folder / "stream" / "shards" / "rows" / f"{number:05}.arrow", tokens)
    total = rows * SEQUENCE
    ends = np.unique(np.append(np.arange(DOCUMENT_TOKENS - 1, total, DOCUMENT_TOKENS), total - 1))
    _write_tables(folder / "stream", {"rows": sizes})
    _write_documents(folder / "stream", "rows", ends)
    return {"shards": len(sizes)}


def _shard_sizes(rows: int) -> list[int]:
    whole, rest = divmod(rows, SHARD_ROWS)
    return [SHARD_ROWS] * whole + [rest] * (rest > 0)


def _write_shard(path: Path, tokens: NDArray[np.uint16]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(path), "wb") as sink:
        _write_ipc(sink, tokens)


def _write_ipc(sink: pa.NativeFile, tokens: NDArray[np.uint16]) -> None:
    batch = pa.record_batch([pa.FixedSizeListArray.from_arrays(pa.array(tokens), SEQUENCE)], names=["tokens"])
    with pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)


def _shard_bytes(rows: int) -> int:
    sink = pa.MockOutputStream()
    _write_ipc(sink, np.zeros(rows * SEQUENCE, np.uint16))
    return int(sink.size())


def _write_tables(folder: Path, sources: dict[str, list[int]]) -> None:
    """Writes `stream.json`, `shards.parquet` and the tokens' bytes of a stream with these rows a shard."""
    info = {
        "sequence_length": SEQUENCE,
        "vocabulary_size": VOCABULARY,
        "eos_id": EOS_ID,
        "shard_rows": SHARD_ROWS,
        "dtype": "uint16",
    }
    (folder / "stream.json").write_text(json.dumps(info))
    np.save(folder / "token_bytes.npy", np.full(VOCABULARY, 4, np.int32))
    names = np.repeat(list(sources), [len(sizes) for sizes in sources.values()])
    rows = np.concatenate([np.array(sizes, np.int64) for sizes in sources.values()])
    sizes_of = {size: _shard_bytes(size) for size in np.unique(rows).tolist()}
    columns = {
        "source": names.tolist(),
        "number": np.concatenate([np.arange(len(sizes), dtype=np.int32) for sizes in sources.values()]),
        "rows": rows,
        "tokens": rows * SEQUENCE,
        "bytes": [sizes_of[size] for size in rows.tolist()],
        "sha256": ["0" * 64] * len(rows),
    }
    table = pa.table([pa.array(columns[field.name], field.type) for field in SCHEMA], schema=SCHEMA)
    pq.write_table(table, folder / SHARDS)


def _write_documents(folder: Path, source: str, ends: NDArray[np.int64]) -> None:
    """Writes a source's table of documents with its indexes; `ends` are the places of the documents' EOS."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    numbers = pc.utf8_lpad(pa.array(np.arange(len(ends))).cast(pa.string()), 32, "0")
    table = pa.table(
        {
            "doc_id": numbers,
            "uri": pc.binary_join_element_wise(f"{source}.jsonl#record=", numbers, ""),
            "license": pa.array(np.full(len(ends), "CC-BY-4.0")),
            "start": starts,
            "length": ends - starts,
            "bytes": (ends - starts) * 4,
        }
    )
    for name in ("docs", "index"):
        (folder / name).mkdir(exist_ok=True)
    path = folder / "docs" / f"{source}.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        for batch in table.combine_chunks().to_batches(max_chunksize=1 << 16):
            writer.write_batch(batch)
    for column in ("doc_id", "uri"):  # zero-padded: their order is the stream's
        np.save(folder / "index" / f"{source}.{column}.npy", np.arange(len(ends)))


SHARES = {"papers": 0.6, "reports": 0.3, "labels": 0.1}
"""Sources of the table of 10^9 rows."""
DOCUMENTS_OF_TABLE = 1_000_000
"""Half of them have 1,000 tokens, half are as long as it takes."""
AHEAD = 4096
"""Batches behind the measured one whose shards exist too: a loader may look ahead."""


def make_table(folder: Path, rows: int, step: int) -> dict[str, Any]:
    """The tables of a stream of so many rows in `stream/`; of its shards only those that `step` and the batches after
    it touch, as sparse files. `plain.npy` is one shard's worth of rows as a plain array, sparse too."""
    stream = folder / "stream"
    stream.mkdir(parents=True)
    sources = {name: _shard_sizes(round(rows * share)) for name, share in SHARES.items()}
    _write_tables(stream, sources)
    for name, sizes in sources.items():
        total = sum(sizes) * SEQUENCE
        count = round(DOCUMENTS_OF_TABLE * SHARES[name]) // 2
        lengths = np.tile([1000, total // count - 1000], count)
        lengths[-1] += total - int(lengths.sum())
        _write_documents(stream, name, np.cumsum(lengths) - 1)
    order = table_order(ShardTable.load(stream), rows)
    touched = order.at(np.arange(step * BATCH, min((step + AHEAD) * BATCH, order.samples)))
    _write_shard(folder / "full.arrow", np.zeros(SHARD_ROWS * SEQUENCE, np.uint16))
    names = list(sorted(sources))
    for source, shard in sorted({(int(s), int(n)) for s, n in zip(touched.source, touched.shard, strict=True)}):
        name = names[source]
        path = stream / "shards" / name / f"{shard:05}.arrow"
        path.parent.mkdir(parents=True, exist_ok=True)
        if sources[name][shard] == SHARD_ROWS:
            _copy_sparse(folder / "full.arrow", path)
        else:
            _write_shard(path, np.zeros(sources[name][shard] * SEQUENCE, np.uint16))
    np.lib.format.open_memmap(folder / "plain.npy", "w+", np.uint16, (SHARD_ROWS, SEQUENCE)).flush()
    (folder / "full.arrow").unlink()
    return {"shards": sum(len(sizes) for sizes in sources.values())}


def table_order(shards: ShardTable, rows: int) -> Order:
    """The order of one epoch over so many rows."""
    return Order(shards, DIGEST, SEED, [Phase(rows // BATCH * BATCH)], WINDOW)


def _copy_sparse(source: Path, target: Path, block: int = 1 << 16) -> None:
    """Copies a file, leaving holes where it holds zeros."""
    with source.open("rb") as read, target.open("wb") as write:
        while part := read.read(block):
            if part.count(0) == len(part):
                write.seek(len(part), 1)
            else:
                write.write(part)
        write.truncate(source.stat().st_size)
