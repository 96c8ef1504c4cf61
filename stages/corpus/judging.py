"""The second pass: boilerplate, filters, decontamination, signatures. One task judges one chunk of the first pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from stages.corpus.boilerplate import strip_boilerplate
from stages.corpus.config import CorpusConfig
from stages.corpus.decontaminate import Index
from stages.corpus.filters import Filters
from stages.corpus.nearcopies import signature
from stages.corpus.policy import Removal
from stages.corpus.tables import JUDGED
from stages.corpus.words import shingles, text_hash


class ChunkReader(PipelineStep):
    """Reads the documents of a chunk that are still in, by the mask `{chunk}.npy` beside it."""

    type, name = "reader", "chunk"

    def __init__(self, chunks: list[str], folder: Path):
        super().__init__()
        self.chunks, self.folder = chunks, folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields documents with the first pass's columns as metadata."""
        name = self.chunks[rank]
        keep = np.load(self.folder / f"{name}.npy")
        columns = [c for c in JUDGED.names if c in pq.read_schema(self.folder / name).names] + ["personal"]
        table = pq.read_table(self.folder / name, columns=columns).filter(pa.array(keep))
        for row in table.to_pylist():
            yield Document(text=row.pop("text"), id=row.pop("doc_id"), metadata=row)


class Judge(PipelineStep):
    """Edits and judges: boilerplate, then filters, then decontamination; the first removal counts."""

    type, name = "filter", "judge"

    def __init__(self, sources: list[str], folder: Path, config: CorpusConfig):
        super().__init__()
        self.sources, self.folder, self.config = sources, folder, config

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Adds to each document's metadata: language, score, removal, shingles, lines (that went)."""
        boilerplate = set(np.load(self.folder / f"boilerplate-{self.sources[rank]}.npy").tolist())
        index = Index.load(self.folder / "questions.npz")
        filters = Filters(self.config.filters)
        for document in data or ():
            note = document.metadata
            document.text, note["lines"] = strip_boilerplate(document.text, boilerplate, self.config.edits)
            if note["lines"]:
                note["steps"] = [*note["steps"], "boilerplate"]
            note["language"], note["score"], note["removal"] = filters.judge(document.text)
            if note["removal"] is None and index.tables:
                note["removal"] = index.removal(document.text, self.config.decontamination)
            wanted = self.config.dedup.near and note["removal"] is None
            note["shingles"] = shingles(document.text, self.config.dedup.ngram) if wanted else None
            yield document


class JudgedWriter(PipelineStep):
    """Signs the documents that stay and writes the chunk, and `{chunk}.json` with what was edited."""

    type, name = "writer", "judged"

    def __init__(self, chunks: list[str], folder: Path, config: CorpusConfig):
        super().__init__()
        self.chunks, self.folder, self.config = chunks, folder, config

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Consumes the documents; yields none."""
        documents = list(data or ())
        edits: Counter[str] = Counter()
        for document in documents:
            personal = document.metadata.pop("personal")
            edits.update(json.loads(personal) if personal else {})
            lines = document.metadata.pop("lines")
            edits.update({"boilerplate_lines": lines, "boilerplate_documents": 1} if lines else {})
        found = [document.metadata.pop("shingles") for document in documents]
        signed = [i for i, one in enumerate(found) if one is not None]
        sets = [found[i] for i in signed]
        signatures: Iterable[Any] = signature(sets, self.config.dedup) if sets else ()
        marks = {i: (row.tobytes(), one.tobytes()) for i, row, one in zip(signed, signatures, sets, strict=True)}
        rows = [_row(document, *marks.get(i, (None, None))) for i, document in enumerate(documents)]
        name = self.chunks[rank]
        pq.write_table(pa.Table.from_pylist(rows, schema=JUDGED), self.folder / name, compression="zstd")
        (self.folder / f"{name}.json").write_text(json.dumps(edits))
        yield from ()


def _row(document: Document, signed: bytes | None, found: bytes | None) -> dict[str, Any]:
    note = dict(document.metadata)
    removal: Removal = note.pop("removal") or Removal("")
    return {
        **note,
        "doc_id": document.id,
        "text": document.text,
        "text_hash": text_hash(document.text),
        "characters": len(document.text),
        "signature": signed,
        "shingles": found,
        "rule": removal.rule,
        "value": removal.value,
        "threshold": removal.threshold,
        "detail": removal.detail,
    }
