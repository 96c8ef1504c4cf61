"""The first pass, a batch of documents at a time: policy, personal data, hashes; writes chunks for the second pass."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from stages.corpus.config import CorpusConfig
from stages.corpus.dedup.boilerplate import edge_blocks
from stages.corpus.kernels.collapse import collapse_white_space, fingerprints
from stages.corpus.ledger import verdict_columns
from stages.corpus.personal import PersonalData
from stages.corpus.policy import Removal, policy_removal
from stages.corpus.reading.file_ranges import ReadTask
from stages.corpus.tables import READ, write_chunk
from stages.corpus.texts import Texts

CHUNK_DOCUMENTS = 2500
CHUNK_CHARACTERS = 4 << 20
"""Most documents and characters of a chunk, which is a task of the second pass: large enough to be worth its overhead,
small enough for workers to be equally busy."""

COPIED_COLUMNS = ("file", "file_range", "record", "span", "license", "retrieved_at", "group", "subject", "steps")
"""Columns that are copied from the documents' metadata."""


class Prepare(PipelineStep):
    """Collects documents into chunks and prepares them for comparison: the policy's verdict; for allowed documents
    personal data, and the hashes of their blocks.

    Writes numbered chunks to `folder`, and `{rank:05}.json` with their names and sizes.
    """

    type, name = "edit", "prepare"

    def __init__(self, tasks: Sequence[ReadTask], folder: Path, config: CorpusConfig):
        super().__init__()
        self.tasks, self.folder, self.config = tasks, folder, config

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Consumes the documents; yields none."""
        edits = self.config.edits
        personal = PersonalData(dict(edits.personal_data.items()), edits.phone_countries)
        pending: list[Document] = []
        characters = 0
        chunks: list[dict[str, Any]] = []

        def close() -> None:
            name = f"{rank:05}-{len(chunks):05}.arrow"
            write_chunk(prepare_documents(pending, self.tasks[rank].source, self.config, personal), self.folder / name)
            chunks.append({"name": name, "documents": len(pending)})
            pending.clear()

        for document in data or ():
            pending.append(document)
            characters += _size(document)
            if len(pending) >= CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
                close()
                characters = 0
        if pending:
            close()
        (self.folder / f"{rank:05}.json").write_text(json.dumps(chunks))
        yield from ()


def _size(document: Document) -> int:
    """Characters of a document and its metadata: in a hostile source titles may be larger than texts."""
    note = document.metadata
    size = len(document.text) + len(note["group"]) + len(note["subject"]) + len(note["url"])
    return size + len(note["record_id"]) + len(note["retrieved_at"]) + len(note["license"])


def prepare_documents(documents: list[Document], source: str, config: CorpusConfig, personal: PersonalData) -> pa.Table:
    """Documents of one source as a table of the schema `READ`."""
    texts = Texts.of(document.text for document in documents)
    notes = [document.metadata for document in documents]
    sizes = texts.sizes
    exact = _exact_hashes(texts)
    removals = _policy(notes, source, config)
    allowed = np.ones(len(documents), bool)
    allowed[list(removals)] = False

    found = personal.find(texts, allowed)
    texts = found.texts
    for i in np.flatnonzero(found.changed).tolist():
        notes[i]["steps"].append("personal_data")
    for i, kinds in found.tags.items():
        notes[i]["steps"].extend(f"tag_{kind}" for kind in kinds)
    removals |= found.removals
    texts = _normalize_line_ends(texts, notes, allowed)

    edges, starts = edge_blocks(texts, config.edits)
    ids = [note["record_id"] for note in notes]
    record_ids = fingerprints(*_buffers(ids))
    columns = {name: pa.array([note[name] for note in notes], READ.field(name).type) for name in COPIED_COLUMNS}
    columns |= {
        "doc_id": pa.array([document.id for document in documents], pa.string()),
        "text": texts.to_arrow(),
        "exact": pa.array(exact, pa.binary(16)),
        "edges": pa.ListArray.from_arrays(pa.array(starts.astype(np.int32)), pa.array(edges)),
        "group_hash": pa.array(fingerprints(*_buffers(note["group"] for note in notes))),
        "record_id": pa.array(record_ids, mask=np.array([not one for one in ids], bool)),
        "bytes": pa.array(sizes),
        "personal": pa.array([json.dumps(found.counts[i]) if i in found.counts else "" for i in range(len(notes))]),
        **verdict_columns(removals, len(documents)),
    }
    return pa.table([columns[name] for name in READ.names], schema=READ)


def _buffers(values: Any) -> tuple[np.ndarray, np.ndarray]:
    texts = Texts.of(values)
    return texts.data, texts.offsets


def _exact_hashes(texts: Texts) -> list[bytes]:
    """Hashes that exact copies share: BLAKE2b of the text with runs of white space as one space."""
    data, starts = collapse_white_space(texts.data, texts.offsets)
    plain = data.data
    places = starts.tolist()
    return [hashlib.blake2b(plain[first:last], digest_size=16).digest() for first, last in pairwise(places)]


def _policy(notes: list[dict[str, Any]], source: str, config: CorpusConfig) -> dict[int, Removal]:
    """Removals by policy. Without URL patterns the verdict depends on the licence alone."""
    known: dict[tuple[str, str], Removal | None] = {}
    removals = {}
    for i, note in enumerate(notes):
        key = (note["license"], note["url"] if config.policy.denied_urls else "")
        if key not in known:
            known[key] = policy_removal(config.policy, source, *key)
        removal = known[key]
        if removal:
            removals[i] = removal
    return removals


def _normalize_line_ends(texts: Texts, notes: list[dict[str, Any]], allowed: np.ndarray) -> Texts:
    """`\\r\\n` and `\\r` as `\\n`."""
    returns = np.flatnonzero(texts.data == 13)
    rows = np.unique(np.searchsorted(texts.offsets, returns, "right") - 1)
    changed = {}
    for i in rows[allowed[rows]].tolist():
        changed[i] = texts.bytes_of(i).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        notes[i]["steps"].append("line_ends")
    return texts.replace(changed)
