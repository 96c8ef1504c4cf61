"""Held-out documents and training tokens, read from a tokens artifact."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from stages.evaluation.sets import keyed_hash

if TYPE_CHECKING:
    from stages.tokens.reader import Document, TokenReader

_ROWS_PER_READ = 256


@dataclass(frozen=True)
class HeldoutDocument:
    """One held-out document as tokens, without its EOS."""

    doc_id: str
    source: str
    tokens: np.ndarray
    """int64 [length]"""


def heldout_documents(folder: Path, documents: int | None, limit: int | None, seed: int) -> list[HeldoutDocument]:
    """Held-out documents of a tokens artifact: all, or a subset determined by the seed.

    They are selected in the order of a keyed hash of `doc_id`, at most `documents` of them, until their total is at
    least `limit` bytes; returned sorted by `doc_id`, each once: documents with equal `doc_id` are equal.
    """
    from stages.tokens.reader import TokenReader

    if documents == 0 or not (folder / "heldout" / "shards.parquet").is_file():
        return []
    reader = TokenReader(folder, split="heldout")
    rows: list[tuple[bytes, Document]] = []
    for number in range(len(reader.shards.sources)):
        for document in (reader.document(number, i) for i in range(reader.document_count(number))):
            rows.append((keyed_hash(document.doc_id, seed), document))
    chosen: dict[str, HeldoutDocument] = {}
    size = 0
    for _, document in sorted(rows):
        if (documents is not None and len(chosen) >= documents) or (limit is not None and size >= limit):
            break
        if document.doc_id in chosen:
            continue
        tokens = _tokens(reader, document)
        chosen[document.doc_id] = HeldoutDocument(document.doc_id, reader.shards.sources[document.source], tokens)
        size += int(reader.token_bytes[tokens].sum())
    return [chosen[doc] for doc in sorted(chosen)]


def training_counts(folder: Path, limit: int | None) -> np.ndarray:
    """Occurrences of each token in the training stream, int64 [vocabulary]; 0 for EOS.

    With a limit, about that many tokens are read: the same fraction of each shard, from its beginning.
    """
    from stages.tokens.reader import TokenReader

    reader = TokenReader(folder)
    counts = np.zeros(reader.vocabulary_size, dtype=np.int64)
    for _, tokens in training_rows(reader, limit):
        counts += np.bincount(tokens, minlength=counts.size)
    counts[reader.eos_id] = 0
    return counts


def training_rows(reader: TokenReader, limit: int | None) -> Iterator[tuple[bool, np.ndarray]]:
    """Training tokens [n], a few rows at a time, and whether they continue the previous ones.

    With a limit, about that many tokens in total: the same fraction of each shard, from its beginning.
    """
    total = sum(int(rows.sum()) for rows in reader.shards.rows) * reader.sequence_length
    fraction = 1.0 if limit is None or total <= limit else limit / total
    for source, shards in enumerate(reader.shards.rows):
        continues = False
        for shard, rows in enumerate(shards.tolist()):
            wanted = max(1, round(rows * fraction))
            for first in range(0, wanted, _ROWS_PER_READ):
                yield continues, reader.rows(source, shard, first, min(_ROWS_PER_READ, wanted - first))
                continues = True
            continues = wanted == rows


def _tokens(reader: TokenReader, document: Document) -> np.ndarray:
    """A document's tokens without its EOS, int64 [length]."""
    size = reader.sequence_length
    shards = reader.shards.rows[document.source]
    row, end = document.start // size, -(-(document.start + document.length) // size)
    parts = []
    while row < end:
        shard, inside = divmod(row, reader.shard_rows)
        count = min(end - row, int(shards[shard]) - inside)
        parts.append(reader.rows(document.source, shard, inside, count))
        row += count
    if not parts:
        return np.empty(0, dtype=np.int64)
    offset = document.start % size
    return np.concatenate(parts)[offset : offset + document.length].astype(np.int64)
