"""The first pass reads records as documents; what cannot be read it notes, and goes on."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.readers.base import BaseReader

from stages.corpus.config import FieldMapping, SourceConfig
from stages.corpus.heldout import group_of
from stages.corpus.policy import normalize_license
from stages.corpus.reading.file_ranges import ReadTask
from stages.corpus.reading.records import Bad, Record, Seen, format_in, read_records, text_of
from stages.corpus.words import text_hash

REMEMBERED = 10_000
"""So many different licences are looked up before they are forgotten."""


class QuarantiningReader(BaseReader):
    """A datatrove reader that notes what it cannot read, with file, record and reason, and goes on.

    Leaves `{rank:05}.quarantine.jsonl` in `folder`, and `{rank:05}.seen.json`: records of each piece.
    """

    name = "records"

    def __init__(self, tasks: Sequence[ReadTask], folder: Path, maximum_record_bytes: int):
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
                window = task.config.letters_per_document
                for record in read_records(task.listing, piece, format, columns, self.limit, count, window):
                    found = made.of(record, piece.file, place)
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
        fields = config.fields
        self._text = fields.text or "text"
        self._title, self._url, self._group = fields.title, fields.url, fields.group
        self._retrieved_at, self._id, self._license_field = fields.retrieved_at, fields.id, fields.license
        self._source_license = config.license
        self._group_is_address = fields.group == fields.url
        self._licenses: dict[str, str] = {}
        self._last_group = ("", "")

    def of(self, record: Record, file: str, piece: int) -> Document | Bad:
        """A record as a document; text as Unicode NFC."""
        row = record.value
        if isinstance(row, Bad):
            return row
        text = row.get(self._text)
        if type(text) is not str or not text or text.isspace():
            text = text_of(row, self._text)
            if isinstance(text, Bad):
                return text
        steps = []
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            steps.append("nfc")
        doc_id = text_hash(text)
        title, url, group = _value(row, self._title), _value(row, self._url), _value(row, self._group)
        metadata = {
            "file": file,
            "piece": piece,
            "record": record.number,
            "span": record.span,
            "license": self._license(row),
            "retrieved_at": _value(row, self._retrieved_at),
            "group": self._folded(group, title, url, doc_id),
            "subject": title or ("" if self._group_is_address else group),
            "url": url,
            "record_id": _value(row, self._id),
            "steps": steps,
        }
        return Document(text, doc_id, [], metadata)

    def _folded(self, group: str, title: str, url: str, doc_id: str) -> str:
        """`group_of`; documents of one group often stand together, so the last answer is kept."""
        written = group or title or url
        if not written.strip() or written != self._last_group[0]:
            self._last_group = (written, group_of(group, title, url, doc_id))
        return self._last_group[1]

    def _license(self, row: dict[str, Any]) -> str:
        written = self._source_license or _value(row, self._license_field)
        known = self._licenses.get(written)
        if known is None:
            if len(self._licenses) >= REMEMBERED:
                self._licenses.clear()
            known = self._licenses[written] = normalize_license(written)
        return known


def _value(row: dict[str, Any], field: str | None) -> str:
    """A field of a record as a string."""
    if not field:
        return ""
    found = row.get(field)
    return found if isinstance(found, str) else "" if found is None else str(found)
