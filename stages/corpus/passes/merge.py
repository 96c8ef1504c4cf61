"""Between the passes, over all sources: exact duplicates, repeated ids, and which lines are boilerplate.

Workers wait for `merge`, so it does only what the second pass needs; the rest is in `account_for`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.corpus.chunks import Chunk, Rows, identities, lists_of, row_offsets
from stages.corpus.config import CorpusConfig
from stages.corpus.dedup.block_counts import BlockCounts
from stages.corpus.dedup.exact import count_repeats, first_copies
from stages.corpus.ledger import Ledger, has_rule, ledger_rows
from stages.corpus.summary import SourceAccount
from stages.corpus.tables import PLACES, read_chunk

KEEP = "keep.npy"
"""Which documents of the first pass go into the second, bool[documents]."""


@dataclass(frozen=True)
class Merged:
    """Which documents go into the second pass, and which ones exact copies duplicate."""

    keep: NDArray[np.bool_]
    """bool[documents], also in `keep.npy`."""
    survivor: Rows
    """For each exact copy the row of the first such document, -1 for all others, int64[documents]."""


def merge(config: CorpusConfig, chunks: Sequence[Chunk], folder: Path) -> Merged:
    """Decides which documents go into the second pass; writes `keep.npy` and `boilerplate-{source}.npy`.

    Of exact duplicates the first in corpus order (source, file, record) is kept. Only kept documents count towards
    boilerplate, so that copies do not produce it.
    """
    memory, count = config.memory_megabytes << 20, int(row_offsets(chunks)[-1])
    survivor = np.full(count, -1, np.int64)
    ruled = [has_rule(read_chunk(folder / chunk.name, ["rule"])) for chunk in chunks]
    if config.dedup.exact:
        survivor = first_copies(count, lambda: _exact_hashes(chunks, folder, ruled), memory)
    keep = ~np.concatenate(ruled) & (survivor < 0)
    np.save(folder / KEEP, keep)
    counts = BlockCounts(config.sources, config.edits, memory)
    for source, lines in counts.boilerplate(lambda: _edges(chunks, folder, keep)).items():
        np.save(folder / f"boilerplate-{source}.npy", lines)
    return Merged(keep, survivor)


def account_for(
    config: CorpusConfig,
    chunks: Sequence[Chunk],
    folder: Path,
    merged: Merged,
    accounts: dict[str, SourceAccount],
    ledger: Ledger,
) -> None:
    """Counts the input, and records why documents do not go into the second pass."""
    _account(chunks, folder, accounts, config.memory_megabytes << 20)
    base, survivor = row_offsets(chunks), merged.survivor
    copied = np.unique(survivor[survivor >= 0])
    copied_from = identities(copied, chunks, folder)
    for number, chunk in enumerate(chunks):
        mine = survivor[base[number] : base[number + 1]]
        copies = mine >= 0
        ruled = ~merged.keep[base[number] : base[number + 1]] & ~copies
        if ruled.any():
            ledger.add(chunk.source, _policy_rows(chunk, folder, np.flatnonzero(ruled)))
        if copies.any():
            survivors = copied_from.take(np.searchsorted(copied, mine[copies]))
            ledger.add(chunk.source, _copy_rows(chunk, folder, np.flatnonzero(copies), survivors))


def _exact_hashes(
    chunks: Sequence[Chunk], folder: Path, ruled: Sequence[NDArray[np.bool_]]
) -> Iterator[NDArray[np.uint64]]:
    """128-bit hashes of each chunk's documents, uint64[n, 2]; zero where the policy has removed one already."""
    for chunk, gone in zip(chunks, ruled, strict=True):
        column = read_chunk(folder / chunk.name, ["exact"])["exact"].combine_chunks()
        hashes = np.frombuffer(column.buffers()[1], np.uint64).reshape(-1, 2)
        yield np.where(gone[:, None], np.uint64(0), hashes[column.offset : column.offset + len(column)])


def _account(chunks: Sequence[Chunk], folder: Path, accounts: dict[str, SourceAccount], memory: int) -> None:
    """Counts input bytes, and records whose id repeats an earlier one of their source."""
    for chunk in chunks:
        sizes = read_chunk(folder / chunk.name, ["bytes"])["bytes"]
        accounts[chunk.source].bytes_in += pc.sum(sizes).as_py() or 0

    def ids(source: str) -> Iterator[NDArray[np.uint64]]:
        for chunk in chunks:
            if chunk.source == source:
                yield read_chunk(folder / chunk.name, ["record_id"])["record_id"].drop_null().to_numpy()

    for source, account in accounts.items():
        documents = sum(chunk.documents for chunk in chunks if chunk.source == source)
        account.repeated_ids = count_repeats(lambda source=source: ids(source), documents, memory)  # type: ignore[misc]


def _policy_rows(chunk: Chunk, folder: Path, rows: Rows) -> pa.Table:
    """The ledger's rows for documents of a chunk that the first pass has removed."""
    verdict = ["rule", "value", "threshold", "detail"]
    table = read_chunk(folder / chunk.name, [*PLACES, *verdict]).take(rows)
    return ledger_rows(chunk, table, table.select(verdict), pa.array([""] * len(rows), pa.string()))


def _copy_rows(chunk: Chunk, folder: Path, rows: Rows, survivors: pa.Table) -> pa.Table:
    """The ledger's rows for documents of a chunk that are copies of `survivors`, row by row."""
    table = read_chunk(folder / chunk.name, PLACES).take(rows)
    verdict = {
        "rule": pa.array(["exact_duplicate"] * len(rows)),
        "value": pa.array(np.ones(len(rows))),
        "threshold": pa.array(np.ones(len(rows))),
        "detail": survivors["where"],
    }
    return ledger_rows(chunk, table, pa.table(verdict), survivors["doc_id"])


def _edges(
    chunks: Sequence[Chunk], folder: Path, keep: NDArray[np.bool_]
) -> Iterator[tuple[str, NDArray[np.uint64], NDArray[np.int64], NDArray[np.uint64]]]:
    """By chunk, of kept documents: source, hashes of the blocks, their offsets by document, and hashes of groups."""
    base = row_offsets(chunks)
    for number, chunk in enumerate(chunks):
        table = read_chunk(folder / chunk.name, ["edges", "group_hash"])
        table = table.filter(pa.array(keep[base[number] : base[number + 1]]))
        yield chunk.source, *lists_of(table["edges"]), table["group_hash"].to_numpy()
