"""Guesses what a recipe does not say: which sources a folder has, and what their fields are called."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice

from stages.corpus.config import FieldMapping, SourceConfig
from stages.corpus.reading.listing import Listing, list_files
from stages.corpus.reading.records import PATTERNS, BadRecord, format_in, read_records
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


def source_listing(source: SourceConfig) -> Listing:
    """The files of a source that can be read as documents.

    Raises:
        InputError: the source does not exist, or has no readable file.
    """
    return readable(list_files(source.location), source)[0]


def readable(listing: Listing, source: SourceConfig) -> tuple[Listing, list[str]]:
    """A listing without files of unsupported formats, and the names of those.

    Raises:
        InputError: no file has a supported format, or a file name is not UTF-8.
    """
    files = tuple(file for file in listing.files if format_in(file.name, source))
    ignored = sorted(file.name for file in listing.files if not format_in(file.name, source))
    if not files:
        raise InputError(
            f"{listing.location} has no file of a supported format ({', '.join(PATTERNS)}); "
            f"its files are: {', '.join(ignored[:5])}; set the source's `format` to read them"
        )
    for file in files:
        if any(0xD800 <= ord(character) < 0xE000 for character in file.name):  # how Python represents such bytes
            raise InputError(f"{listing.path(file.name)!a}: the file name is not UTF-8; rename the file")
    return Listing(listing.location, files), ignored


def sources_in(location: str) -> dict[str, SourceConfig]:
    """The sources in a folder: each readable file, and each subfolder with readable files, directly below it.

    A single file is one source. Fields are guessed from the first records, so that the guesses can be printed.

    Raises:
        InputError: there are no documents.
    """
    whole = list_files(location, PATTERNS)
    top: dict[str, list[str]] = {}
    for file in whole.files:
        if not format_in(file.name, SourceConfig(location=location)):
            continue
        top.setdefault(file.name.split("/", 1)[0], []).append(file.name)
    stems = [_stem(name) for name in top]
    sources = {}
    for name in sorted(top):
        clash = stems.count(_stem(name)) > 1
        label = _clean(name if clash else _stem(name))
        if label in sources:
            raise InputError(f"{location}: two sources would have the same name {label!r}; rename one file or folder")
        path = whole.path(name)
        base = SourceConfig(location=path)
        sources[label] = base.model_copy(update={"fields": resolve_fields(source_listing(base), base)})
    return sources


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


def _stem(name: str) -> str:
    for end in sorted((pattern[1:] for pattern in PATTERNS), key=len, reverse=True):
        if name.lower().endswith(end):
            return name[: -len(end)]
    return name


def _clean(name: str) -> str:
    cleaned = "".join(c if c.isascii() and (c.isalnum() or c in " ._+-") else "_" for c in name)
    return cleaned if cleaned[:1].isalnum() else f"x{cleaned}"
