"""The first pass reads records as documents; what cannot be read it notes, and goes on."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.readers.base import BaseReader

from stages.corpus.config import FieldMapping, SourceConfig
from stages.corpus.policy import normalize_license
from stages.corpus.records import Bad, Seen, format_in, read_records, text_of
from stages.corpus.split import group_of
from stages.corpus.splitting import ReadTask
from stages.corpus.words import text_hash

REMEMBERED = 10_000
"""So many different licences are looked up before they are forgotten."""


class QuarantiningReader(BaseReader):
    """A datatrove reader that notes what it cannot read, with file, record and reason, and goes on.

    Leaves `{rank:05}.quarantine.jsonl` in `folder`, and `{rank:05}.seen.json`: records of each piece.
    """

    name = "records"

    def __init__(self, tasks: list[ReadTask], folder: Path, maximum_record_bytes: int):
        super().__init__()
        self.tasks, self.folder, self.limit = tasks, folder, maximum_record_bytes

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents of this rank's task; `id` is the doc_id, metadata holds the rest of the record."""
        task = self.tasks[rank]
        columns, made = _columns(task.config.fields), _Documents(task.config)
        seen: list[int] = []
        with (self.folder / f"{rank:05}.quarantine.jsonl").open("w", encoding="utf-8") as quarantine:
            for place, piece in enumerate(task.pieces):
                count = Seen()
                format = format_in(piece.file, task.config)
                for record in read_records(task.listing, piece, format, columns, self.limit, count):
                    found = made.of(record.value, piece.file, place, record.number)
                    if isinstance(found, Document):
                        yield found
                        continue
                    line = {"source": task.source, "file": piece.file, "piece": place, "record": record.number}
                    line["reason"] = found.reason
                    if found.rest_lost:
                        line["rest_lost"] = True
                    quarantine.write(json.dumps(line, ensure_ascii=False) + "\n")
                seen.append(count.number)
        (self.folder / f"{rank:05}.seen.json").write_text(json.dumps(seen))


def _columns(fields: FieldMapping) -> list[str]:
    names = [value for value in fields.model_dump().values() if value]
    return sorted({part for name in names for part in (name, *name.split("+"))})


class _Documents:
    """Makes documents of a source's records."""

    def __init__(self, config: SourceConfig):
        self._config, self._fields = config, config.fields
        self._licenses: dict[str, str] = {}

    def of(self, row: dict[str, Any] | Bad, file: str, piece: int, number: int) -> Document | Bad:
        """A record as a document; text as Unicode NFC."""
        if isinstance(row, Bad):
            return row
        fields = self._fields
        text = text_of(row, fields.text or "text")
        if isinstance(text, Bad):
            return text
        steps = []
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            steps.append("nfc")
        doc_id = text_hash(text)
        title, url, group = _value(row, fields.title), _value(row, fields.url), _value(row, fields.group)
        metadata = {
            "file": file,
            "piece": piece,
            "record": number,
            "license": self._license(row),
            "retrieved_at": _value(row, fields.retrieved_at),
            "group": group_of(group, title, url, doc_id),
            "subject": title or ("" if fields.group == fields.url else group),
            "url": url,
            "record_id": _value(row, fields.id),
            "steps": steps,
        }
        return Document(text=text, id=doc_id, metadata=metadata)

    def _license(self, row: dict[str, Any]) -> str:
        written = self._config.license or _value(row, self._fields.license)
        known = self._licenses.get(written)
        if known is None:
            if len(self._licenses) >= REMEMBERED:
                self._licenses.clear()
            known = self._licenses[written] = normalize_license(written)
        return known


def _value(row: dict[str, Any], field: str | None) -> str:
    """A field of a record as a string."""
    found = row.get(field) if field else None
    return found if isinstance(found, str) else "" if found is None else str(found)
