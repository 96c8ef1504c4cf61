"""Between the passes, over all sources: exact duplicates, repeated ids, and which lines are boilerplate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow.parquet as pq

from stages.corpus.boilerplate import EdgeLines
from stages.corpus.config import CorpusConfig
from stages.corpus.ledger import Ledger
from stages.corpus.policy import Removal
from stages.corpus.summary import SourceAccount

COLUMNS = ["doc_id", "file", "record", "exact", "edges", "group", "record_id", "bytes", "rule", "detail"]


class ChunkOf(Protocol):
    """What is asked of a chunk here."""

    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...


def merge(
    config: CorpusConfig,
    chunks: Sequence[ChunkOf],
    folder: Path,
    accounts: dict[str, SourceAccount],
    ledger: Ledger,
) -> None:
    """Decides which documents go into the second pass: a mask `{chunk}.npy` each, and `boilerplate-{source}.npy`.

    Of exact duplicates the first in corpus order (source, file, record) stays. Only documents that stay count when
    boilerplate is looked for, so that copies do not make it.
    """
    first: dict[bytes, tuple[str, str, str]] = {}
    ids: dict[str, set[int]] = {source: set() for source in accounts}
    edges = EdgeLines(accounts, config.edits)
    for chunk in chunks:
        source, account = chunk.source, accounts[chunk.source]
        rows = pq.read_table(folder / chunk.name, columns=COLUMNS).to_pylist()
        keep = np.ones(len(rows), bool)
        for i, row in enumerate(rows):
            account.bytes_in += row["bytes"]
            if row["record_id"] is not None:
                account.repeated_ids += row["record_id"] in ids[source]
                ids[source].add(row["record_id"])
            uri = f"{row['file']}#{row['record']}"
            if row["rule"]:
                removal = Removal(row["rule"], detail=row["detail"])
            elif config.dedup.exact and row["exact"] in first:
                survivor, of, where = first[row["exact"]]
                removal = Removal("exact_duplicate", 1.0, 1.0, f"{of}/{where}", survivor)
            else:
                first.setdefault(row["exact"], (row["doc_id"], source, uri))
                edges.add(source, row["edges"], row["group"])
                continue
            keep[i] = False
            ledger.add(source, row["doc_id"], uri, removal)
        np.save(folder / f"{chunk.name}.npy", keep)
    for source, lines in edges.boilerplate().items():
        np.save(folder / f"boilerplate-{source}.npy", lines)
