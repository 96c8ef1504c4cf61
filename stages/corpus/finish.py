"""Behind the passes: near duplicates over all sources, the split, and the artifact's document files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from stages.artifact import ArtifactWriter
from stages.corpus.config import CorpusConfig
from stages.corpus.ledger import Ledger
from stages.corpus.merging import ChunkOf
from stages.corpus.nearcopies import NearCopy, bands, near_copies, with_partners
from stages.corpus.policy import UNKNOWN, Removal
from stages.corpus.split import is_held_out
from stages.corpus.summary import SourceAccount
from stages.corpus.tables import DOCUMENTS, RowFiles
from stages.corpus.words import Hashes, words

Key = tuple[int, int]
"""Number of the chunk and of the row in it."""


def near_duplicates(
    config: CorpusConfig, chunks: Sequence[ChunkOf], folder: Path, ledger: Ledger
) -> dict[Key, Removal]:
    """Which of the judged documents are near duplicates of one that stays.

    Preferred are documents with a known licence, then by order of sources, then the longer, then by doc_id.
    """
    if not config.dedup.near:
        return {}
    places, rows, signatures = _signed(chunks, folder)
    if not places:
        return {}
    marks = np.frombuffer(b"".join(signatures), np.uint32).reshape(len(places), config.dedup.permutations)
    keys = bands(marks, config.dedup)
    candidates = np.flatnonzero(with_partners(keys)).tolist()
    shingles, texts = _contents({places[i]: i for i in candidates}, chunks, folder)
    sources = {name: i for i, name in enumerate(dict.fromkeys(chunk.source for chunk in chunks))}

    def preference(i: int) -> tuple[Any, ...]:
        row = rows[i]
        source = sources[chunks[places[i][0]].source]
        return row["license"] == UNKNOWN, source, -row["characters"], row["doc_id"], places[i]

    plain: dict[int, str] = {}

    def words_of(i: int) -> str:
        if i not in plain:
            plain[i] = f" {' '.join(words(texts[i]))} "
        return plain[i]

    def may_replace(document: int, survivor: int) -> bool:
        subject = rows[document]["subject"]
        if not config.dedup.protect_subjects or not subject or subject == rows[survivor]["subject"]:
            return True
        named = f" {subject} "
        return named not in words_of(document) or named in words_of(survivor)

    found = near_copies(
        sorted(candidates, key=preference), marks, keys, shingles.__getitem__, may_replace, config.dedup
    )
    return {places[copy.document]: _removal(copy, config, chunks, places, rows) for copy in found}


def _removal(
    copy: NearCopy, config: CorpusConfig, chunks: Sequence[ChunkOf], places: list[Key], rows: list[dict[str, Any]]
) -> Removal:
    survivor = rows[copy.survivor]
    where = f"{chunks[places[copy.survivor][0]].source}/{survivor['file']}#{survivor['record']}"
    return Removal("near_duplicate", round(copy.similarity, 4), config.dedup.threshold, where, survivor["doc_id"])


def _signed(chunks: Sequence[ChunkOf], folder: Path) -> tuple[list[Key], list[dict[str, Any]], list[bytes]]:
    """Place, columns and signature of every document that no rule removed so far."""
    columns = ["doc_id", "file", "record", "license", "subject", "characters", "signature"]
    places, rows, signatures = [], [], []
    for number, chunk in enumerate(chunks):
        for i, row in enumerate(pq.read_table(folder / chunk.name, columns=columns).to_pylist()):
            mark = row.pop("signature")
            if mark is not None:
                places.append((number, i))
                rows.append(row)
                signatures.append(mark)
    return places, rows, signatures


def _contents(
    wanted: dict[Key, int], chunks: Sequence[ChunkOf], folder: Path
) -> tuple[dict[int, Hashes], dict[int, str]]:
    """n-grams and texts of the documents that have a candidate; the others' are never loaded."""
    shingles: dict[int, Hashes] = {}
    texts: dict[int, str] = {}
    by_chunk: dict[int, list[tuple[int, int]]] = {}
    for (number, row), i in wanted.items():
        by_chunk.setdefault(number, []).append((row, i))
    for number, rows in by_chunk.items():
        table = pq.read_table(folder / chunks[number].name, columns=["text", "shingles"])
        for row, i in rows:
            shingles[i] = np.frombuffer(table["shingles"][row].as_py(), np.uint64)
            texts[i] = table["text"][row].as_py()
    return shingles, texts


def write_documents(
    config: CorpusConfig,
    chunks: Sequence[ChunkOf],
    folder: Path,
    copies: dict[Key, Removal],
    accounts: dict[str, SourceAccount],
    ledger: Ledger,
    writer: ArtifactWriter,
) -> None:
    """Writes training and held-out documents in corpus order, and the removals of the second pass to the ledger."""
    files: dict[tuple[str, str], RowFiles] = {}
    for number, chunk in enumerate(chunks):
        source, account = chunk.source, accounts[chunk.source]
        for i, row in enumerate(pq.read_table(folder / chunk.name).to_pylist()):
            uri = f"{row['file']}#{row['record']}"
            removal = copies.get((number, i))
            if row["rule"]:
                removal = Removal(row["rule"], row["value"], row["threshold"], row["detail"])
            if removal:
                ledger.add(source, row["doc_id"], uri, removal)
                continue
            held = is_held_out(row["group"], config.heldout_fraction, config.seed)
            part = "heldout" if held else "documents"
            if (part, source) not in files:
                files[part, source] = _row_files(writer, part, source)
            files[part, source].add(_document(row, source, uri))
            if held:
                account.heldout += 1
            else:
                account.kept += 1
                account.bytes_kept += len(row["text"].encode("utf-8"))
                account.characters_kept += row["characters"]
        writer.events.progress(number + 1, len(chunks), "chunks", step="write")
    for rows in files.values():
        rows.close()


def _row_files(writer: ArtifactWriter, part: str, source: str) -> RowFiles:
    return RowFiles(DOCUMENTS, lambda number: writer.file(f"{part}/{source}/{number:05}.parquet"))


def _document(row: dict[str, Any], source: str, uri: str) -> dict[str, object]:
    same = ("doc_id", "text", "text_hash", "license", "retrieved_at", "language", "group", "steps")
    return {**{name: row[name] for name in same}, "source": source, "uri": uri, "scores": {"language": row["score"]}}
