"""Reads records as documents for the first pass; records that cannot be read are listed in quarantine."""

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
from stages.corpus.reading.field_counts import CONSTANT_FIELDS
from stages.corpus.reading.fields import ABSENT, columns_of, text_of, value_at
from stages.corpus.reading.file_ranges import ReadTask
from stages.corpus.reading.record import BadRecord, Record, RecordCount
from stages.corpus.reading.records import format_in, read_records
from stages.corpus.texts import text_hash

MOST_LICENSES = 10_000
"""Size of the cache of normalized licences."""


class QuarantiningReader(BaseReader):
    """A datatrove reader that lists records that it cannot read, with file, record and reason, and continues.

    Writes `{rank:05}.quarantine.jsonl` to `folder`, and `{rank:05}.counts.json`, the number of records of each range.
    """

    name = "records"

    def __init__(self, tasks: Sequence[ReadTask], folder: Path, maximum_record_bytes: int):
        super().__init__()
        self.tasks, self.folder, self.limit = tasks, folder, maximum_record_bytes

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Yields the documents of this rank's task; `id` is the doc_id, metadata holds the rest of the record."""
        task = self.tasks[rank]
        columns, builder = _columns(task.config.fields), _DocumentBuilder(task.config)
        counts: list[int] = []
        with (self.folder / f"{rank:05}.quarantine.jsonl").open("w", encoding="utf-8") as quarantine:
            for place, file_range in enumerate(task.ranges):
                count = RecordCount()
                format = format_in(file_range.file, task.config)
                window = task.config.letters_per_document
                text = _text_field(task.config.fields, format)
                for record in read_records(task.listing, file_range, format, columns, self.limit, count, window):
                    found = builder.build(record, file_range.file, place, text)
                    if isinstance(found, Document):
                        yield found
                        continue
                    line = {
                        "source": task.source,
                        "file": file_range.file,
                        "file_range": place,
                        "record": record.number,
                    }
                    line["reason"] = found.reason
                    if found.rest_lost:
                        line["rest_lost"] = True
                    if format == "txt" and isinstance(record.value, dict):  # a text that is no document: only space
                        line["blank"] = True
                    quarantine.write(json.dumps(line, ensure_ascii=False) + "\n")
                counts.append(count.number)
        (self.folder / f"{rank:05}.counts.json").write_text(json.dumps(counts))


def _text_field(fields: FieldMapping, format: str) -> str:
    """The field with the text: the source's, unless files of this format cannot have it, beside others that can."""
    named = fields.text or "text"
    constant = CONSTANT_FIELDS.get(format)
    return "text" if constant and not set(named.split("+")) <= set(constant) else named


def _columns(fields: FieldMapping) -> list[str]:
    names = [value for value in fields.model_dump().values() if value]
    return sorted(set().union(*map(columns_of, names)))


class _DocumentBuilder:
    """Builds documents from a source's records."""

    def __init__(self, config: SourceConfig):
        fields = config.fields
        self._title, self._url, self._group = fields.title, fields.url, fields.group
        self._retrieved_at, self._id, self._license_field = fields.retrieved_at, fields.id, fields.license
        self._source_license = config.license
        self._group_is_address = fields.group == fields.url
        self._licenses: dict[str, str] = {}
        self._last_group = ("", "")

    def build(self, record: Record, file: str, file_range: int, text_field: str) -> Document | BadRecord:
        """A record as a document, its text in Unicode NFC; or why it cannot be used."""
        row = record.value
        if isinstance(row, BadRecord):
            return row
        text = row.get(text_field)
        if type(text) is not str or not text or text.isspace():
            text = text_of(row, text_field, record.columns)
            if isinstance(text, BadRecord):
                return text
        steps = []
        if not text.isascii() and not unicodedata.is_normalized("NFC", text):
            text = unicodedata.normalize("NFC", text)
            steps.append("nfc")
        doc_id = text_hash(text)
        title, url, group = _value(row, self._title), _value(row, self._url), _value(row, self._group)
        metadata = {
            "file": file,
            "file_range": file_range,
            "record": record.number,
            "span": record.span,
            "license": self._license(row),
            "retrieved_at": _value(row, self._retrieved_at),
            "group": self._group_of(group, title, url, doc_id),
            "subject": title or ("" if self._group_is_address else group),
            "url": url,
            "record_id": _value(row, self._id),
            "steps": steps,
        }
        return Document(text, doc_id, [], metadata)

    def _group_of(self, group: str, title: str, url: str, doc_id: str) -> str:
        """`group_of`, with the last result cached, since documents of one group are often adjacent."""
        written = group or title or url
        if not written.strip() or written != self._last_group[0]:
            self._last_group = (written, group_of(group, title, url, doc_id))
        return self._last_group[1]

    def _license(self, row: dict[str, Any]) -> str:
        written = self._source_license or _value(row, self._license_field)
        known = self._licenses.get(written)
        if known is None:
            if len(self._licenses) >= MOST_LICENSES:
                self._licenses.clear()
            known = self._licenses[written] = normalize_license(written)
        return known


def _value(row: dict[str, Any], field: str | None) -> str:
    """A field of a record as a string."""
    if not field:
        return ""
    found = row.get(field)
    if found is None and "." in field and (found := value_at(row, field)) is ABSENT:
        return ""
    return found if isinstance(found, str) else "" if found is None else str(found)
