"""Guesses what a recipe does not say: what the fields of a source are called."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from stages.corpus.config import FieldMapping, SourceConfig
from stages.corpus.reading.listing import Listing
from stages.corpus.reading.records import BadRecord, format_in, read_records
from stages.store import InputError

FIRST_ROWS = 20
NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "content", "body", "document", "abstract", "full_text", "article"),
    "id": ("id", "doc_id", "uid", "pmid", "pmcid", "uuid"),
    "url": ("url", "source_url", "link", "uri"),
    "license": ("license", "licence", "rights"),
    "group": ("group", "group_id", "focus", "title", "url"),
    "title": ("title", "focus", "headline", "name"),
    "retrieved_at": ("retrieved_at", "retrieved", "crawled_at", "fetched_at", "date"),
}
"""For each field of a document, candidate names, best first."""

JOINED = ("question", "answer")
"""Fields that are joined to a text if there is no text field."""


def resolve_fields(listing: Listing, source: SourceConfig) -> FieldMapping:
    """Completes a source's field mapping from its first records; a missing field becomes empty.

    Raises:
        InputError: none of the records has a field that the recipe names, or none has a text field.
    """
    wanted = source.fields
    rows = _first_rows(listing, source)
    if not rows:  # no readable record: the reader reports what is wrong with each
        return wanted.model_copy(update={"text": wanted.text or "text"})
    present = sorted({key for row in rows for key in row})
    strings = {key for key in present if any(isinstance(value := row.get(key), str) and value.strip() for row in rows)}
    found: dict[str, str] = {}
    for field, names in NAMES.items():
        named = getattr(wanted, field)
        if named is not None:
            missing = [
                part for part in ([named] if named in present else named.split("+")) if part and part not in present
            ]
            if missing:
                raise InputError(
                    f"{listing.location}: the recipe's field for {field} is {named!r}, but its records have no "
                    f"{missing[0]!r}; they have: {', '.join(present)}"
                )
            found[field] = named
            continue
        candidates = strings if field in ("text", "group", "title", "url", "license") else set(present)
        found[field] = next((name for name in names if name in candidates), "")
    if not found["text"]:
        if not set(JOINED) <= strings:
            raise InputError(
                f"{listing.location}: no field looks like the document's text; name it in the recipe "
                f"(fields: {{text: ...}}); the records have: {', '.join(present)}"
            )
        found["text"] = "+".join(JOINED)
    return FieldMapping(**found)


def printable(sources: Mapping[str, SourceConfig]) -> tuple[list[str], list[list[str]]]:
    """Sources and their fields as a table: (columns, rows)."""
    fields = list(NAMES)
    rows = [
        [name, source.license or "", *(getattr(source.fields, field) or "-" for field in fields), source.location]
        for name, source in sources.items()
    ]
    return ["source", "licence", *fields, "location"], rows


def _first_rows(listing: Listing, source: SourceConfig) -> list[dict[str, object]]:
    """The first readable records, from as few files as possible."""
    rows: list[dict[str, object]] = []
    for file in sorted(listing.files, key=lambda item: item.name):
        format = format_in(file.name, source)
        if not format:
            continue
        if format == "txt":
            return [{"text": "a file's text"}]
        if format.startswith("fasta"):
            return [{"id": "first word of the header", "title": "the header", "text": "the sequence"}]
        records = read_records(listing, file.name, format)
        rows += [r.value for r in islice(records, FIRST_ROWS - len(rows)) if not isinstance(r.value, BadRecord)]
        if len(rows) >= FIRST_ROWS:
            break
    return rows
