"""Between the passes, over all sources: exact duplicates, repeated ids, and which lines are boilerplate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.corpus.block_counts import BlockCounts
from stages.corpus.chunks import Chunk, Rows, bases, identities, lists_of
from stages.corpus.config import CorpusConfig
from stages.corpus.exact import first_copies, repeats
from stages.corpus.ledger import Ledger, is_ruled, removed_rows
from stages.corpus.summary import SourceAccount
from stages.corpus.tables import read_chunk


def merge(
    config: CorpusConfig,
    chunks: Sequence[Chunk],
    folder: Path,
    accounts: dict[str, SourceAccount],
    ledger: Ledger,
) -> None:
    """Decides which documents go into the second pass: a mask `{chunk}.npy` each, and `boilerplate-{source}.npy`.

    Of exact duplicates the first in corpus order (source, file, record) stays. Only documents that stay count when
    boilerplate is looked for, so that copies do not make it.
    """
    memory, base = config.memory_megabytes << 20, bases(chunks)
    count = int(base[-1])
    survivor = np.full(count, -1, np.int64)
    if config.dedup.exact:
        survivor = first_copies(count, lambda: _exact_hashes(chunks, folder), memory)
    _account(chunks, folder, accounts, memory)

    copied = np.unique(survivor[survivor >= 0])
    copied_from = identities(copied, chunks, folder)
    for number, chunk in enumerate(chunks):
        mine = survivor[base[number] : base[number + 1]]
        ruled = is_ruled(read_chunk(folder / chunk.name, ["rule"]))
        copies = mine >= 0
        if ruled.any():
            ledger.add(chunk.source, _by_policy(chunk, folder, np.flatnonzero(ruled)))
        if copies.any():
            survivors = copied_from.take(np.searchsorted(copied, mine[copies]))
            ledger.add(chunk.source, _as_copies(chunk, folder, np.flatnonzero(copies), survivors))
        np.save(folder / f"{chunk.name}.npy", ~ruled & ~copies)

    counts = BlockCounts(accounts, config.edits, memory)
    for source, lines in counts.boilerplate(lambda: _edges(chunks, folder)).items():
        np.save(folder / f"boilerplate-{source}.npy", lines)


def _exact_hashes(chunks: Sequence[Chunk], folder: Path) -> Iterator[NDArray[np.uint64]]:
    """128-bit hashes of a chunk's documents, uint64[n, 2]; zero where the policy has removed one already."""
    for chunk in chunks:
        table = read_chunk(folder / chunk.name, ["exact", "rule"])
        column = table["exact"].combine_chunks()
        hashes = np.frombuffer(column.buffers()[1], np.uint64).reshape(-1, 2)[
            column.offset : column.offset + len(column)
        ]
        yield np.where(is_ruled(table)[:, None], np.uint64(0), hashes)


def _account(chunks: Sequence[Chunk], folder: Path, accounts: dict[str, SourceAccount], memory: int) -> None:
    """Bytes that came in, and how many records had an id that stood before in their source."""
    for chunk in chunks:
        sizes = read_chunk(folder / chunk.name, ["bytes"])["bytes"]
        accounts[chunk.source].bytes_in += pc.sum(sizes).as_py() or 0

    def ids(source: str) -> Iterator[NDArray[np.uint64]]:
        for chunk in chunks:
            if chunk.source == source:
                yield read_chunk(folder / chunk.name, ["record_id"])["record_id"].drop_null().to_numpy()

    for source, account in accounts.items():
        documents = sum(chunk.documents for chunk in chunks if chunk.source == source)
        account.repeated_ids = repeats(lambda source=source: ids(source), documents, memory)  # type: ignore[misc]


def _by_policy(chunk: Chunk, folder: Path, rows: Rows) -> pa.Table:
    """The ledger's rows for documents of a chunk that the first pass has removed."""
    columns = ["doc_id", "file", "piece", "record", "rule", "value", "threshold", "detail"]
    table = read_chunk(folder / chunk.name, columns).take(rows)
    return removed_rows(chunk, table, table.select(columns[4:]), pa.array([""] * len(rows), pa.string()))


def _as_copies(chunk: Chunk, folder: Path, rows: Rows, survivors: pa.Table) -> pa.Table:
    """The ledger's rows for documents of a chunk that are copies of `survivors`, row by row."""
    table = read_chunk(folder / chunk.name, ["doc_id", "file", "piece", "record"]).take(rows)
    verdict = {
        "rule": pa.array(["exact_duplicate"] * len(rows)),
        "value": pa.array(np.ones(len(rows))),
        "threshold": pa.array(np.ones(len(rows))),
        "detail": survivors["where"],
    }
    return removed_rows(chunk, table, pa.table(verdict), survivors["doc_id"])


def _edges(
    chunks: Sequence[Chunk], folder: Path
) -> Iterator[tuple[str, NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]]:
    """Source, hashes of the blocks, where each document's begin, and hashes of groups, of documents that stay."""
    for chunk in chunks:
        table = read_chunk(folder / chunk.name, ["edges", "group_hash"])
        keep = np.load(folder / f"{chunk.name}.npy")
        table = table.filter(pa.array(keep))
        yield chunk.source, *lists_of(table["edges"]), table["group_hash"].to_numpy()
