"""The first pass: read, quarantine, policy, personal data, hashes. One task reads some files of one source."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.readers.base import BaseReader

from stages.corpus.boilerplate import edge_hashes
from stages.corpus.config import EditConfig, FieldMapping, PolicyConfig, SourceConfig
from stages.corpus.listing import Listing
from stages.corpus.personal import replace_personal_data
from stages.corpus.policy import normalize_license, policy_removal
from stages.corpus.records import Bad, format_in, read_records, text_of
from stages.corpus.split import group_of
from stages.corpus.tables import READ
from stages.corpus.words import hash64, text_hash, words

TASK_BYTES = 16 << 20
"""Small files are read together, up to so many bytes a task."""
CHUNK_DOCUMENTS = 1000
CHUNK_CHARACTERS = 8 << 20
"""A chunk of the first pass is a task of the second: large enough to pay, small enough to share out."""


@dataclass(frozen=True)
class ReadTask:
    """Some files of one source, in order."""

    source: str
    config: SourceConfig
    listing: Listing
    files: tuple[str, ...]


def read_tasks(source: str, config: SourceConfig, listing: Listing) -> list[ReadTask]:
    """Cuts a source into tasks: files in order of name, by size alone."""
    tasks: list[ReadTask] = []
    batch: list[str] = []
    size = 0
    for file in sorted(listing.files, key=lambda item: item.name):
        if batch and size + file.bytes > TASK_BYTES:
            tasks.append(ReadTask(source, config, listing, tuple(batch)))
            batch, size = [], 0
        batch.append(file.name)
        size += file.bytes
    return [*tasks, ReadTask(source, config, listing, tuple(batch))]


class QuarantiningReader(BaseReader):
    """A datatrove reader that notes what it cannot read, with file, record and reason, and goes on.

    Leaves `{rank:05}.quarantine.jsonl` in `folder`.
    """

    name = "records"

    def __init__(self, tasks: list[ReadTask], folder: Path):
        super().__init__()
        self.tasks, self.folder = tasks, folder

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents of this rank's task; `id` is the doc_id, metadata holds the rest of the record."""
        task = self.tasks[rank]
        with (self.folder / f"{rank:05}.quarantine.jsonl").open("w", encoding="utf-8") as quarantine:
            for file in task.files:
                format = format_in(file, task.config)
                for record in read_records(task.listing, file, format, _columns(task.config.fields)):
                    found = _document(record.value, task.config, file, record.number)
                    if isinstance(found, Document):
                        yield found
                        continue
                    line = {"source": task.source, "file": file, "record": record.number, "reason": found.reason}
                    if found.rest_lost:
                        line["rest_lost"] = True
                    quarantine.write(json.dumps(line, ensure_ascii=False) + "\n")


def _columns(fields: FieldMapping) -> list[str]:
    names = [value for value in fields.model_dump().values() if value]
    return sorted({part for name in names for part in (name, *name.split("+"))})


def _document(row: dict[str, Any] | Bad, config: SourceConfig, file: str, number: int) -> Document | Bad:
    """A record as a document; text as Unicode NFC with plain line ends."""
    if isinstance(row, Bad):
        return row
    fields = config.fields
    text = text_of(row, fields.text or "text")
    if isinstance(text, Bad):
        return text
    plain = unicodedata.normalize("NFC", text)
    doc_id = text_hash(plain)

    def value(field: str | None) -> str:
        found = row.get(field) if field else None
        return "" if found is None else str(found)

    title, url = value(fields.title), value(fields.url)
    named_group = value(fields.group)
    subject = title or ("" if fields.group == fields.url else named_group)
    metadata = {
        "file": file,
        "record": number,
        "license": normalize_license(config.license or value(fields.license)),
        "retrieved_at": value(fields.retrieved_at),
        "group": group_of(named_group, title, url, doc_id),
        "subject": " ".join(words(subject)),
        "url": url,
        "record_id": hash64(value(fields.id)) if value(fields.id) else None,
        "bytes": len(plain.encode("utf-8")),
        "steps": [] if plain == text else ["nfc"],
    }
    return Document(text=plain, id=doc_id, metadata=metadata)


class Prepare(PipelineStep):
    """Policy's verdict; for documents that it lets through the hashes of text and edges, and personal data replaced."""

    type, name = "edit", "prepare"

    def __init__(self, tasks: list[ReadTask], policy: PolicyConfig, edits: EditConfig):
        super().__init__()
        self.tasks, self.policy, self.edits = tasks, policy, edits

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Adds to each document's metadata: removal, exact, edges, personal."""
        source = self.tasks[rank].source
        for document in data or ():
            note = document.metadata
            note["removal"] = policy_removal(self.policy, source, note["license"], note["url"])
            note["exact"] = exact_hash(document.text)
            note["edges"], note["personal"] = [], {}
            if note["removal"] is None:
                document.text, note["personal"] = replace_personal_data(document.text, self.edits.personal_data)
                if note["personal"]:
                    note["steps"].append("personal_data")
                if "\r" in document.text:
                    document.text = document.text.replace("\r\n", "\n").replace("\r", "\n")
                    note["steps"].append("line_ends")
                note["edges"] = edge_hashes(document.text, self.edits)
            yield document


def exact_hash(text: str) -> bytes:
    """What exact copies have in common: the hash of the NFC text with runs of white space as one space."""
    return hashlib.blake2b(" ".join(text.split()).encode("utf-8"), digest_size=16).digest()


class ChunkWriter(PipelineStep):
    """Writes a task's documents as numbered Parquet chunks, and `{rank:05}.json` with what was counted."""

    type, name = "writer", "chunks"

    def __init__(self, folder: Path):
        super().__init__()
        self.folder = folder

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Consumes the documents; yields none."""
        rows: list[dict[str, Any]] = []
        characters = 0
        chunks: list[dict[str, Any]] = []
        for document in data or ():
            rows.append(_row(document))
            characters += len(document.text)
            if len(rows) >= CHUNK_DOCUMENTS or characters >= CHUNK_CHARACTERS:
                chunks.append(self._write(rows, rank, len(chunks)))
                rows, characters = [], 0
        if rows:
            chunks.append(self._write(rows, rank, len(chunks)))
        (self.folder / f"{rank:05}.json").write_text(json.dumps(chunks))
        yield from ()

    def _write(self, rows: list[dict[str, Any]], rank: int, number: int) -> dict[str, Any]:
        name = f"{rank:05}-{number:05}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=READ), self.folder / name, compression="zstd")
        return {"name": name, "documents": len(rows)}


def _row(document: Document) -> dict[str, Any]:
    note = dict(document.metadata)
    removal = note.pop("removal")
    note.pop("url")
    note["personal"] = json.dumps(note["personal"]) if note["personal"] else ""
    verdict = {"rule": removal.rule, "detail": removal.detail} if removal else {"rule": "", "detail": ""}
    return {"doc_id": document.id, "text": document.text, **note, **verdict, "value": 0.0, "threshold": 0.0}
