"""Guesses what a recipe does not say: what the fields of a source are called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from stages.corpus.config import FieldMapping, SourceConfig
from stages.corpus.reading.field_counts import FieldCounts, count_fields
from stages.corpus.reading.fields import list_names
from stages.corpus.reading.listing import Listing
from stages.store import InputError

NAMES: dict[str, tuple[str, ...]] = {
    "text": ("text", "content", "body", "document", "abstract", "full_text", "article"),
    "id": ("id", "doc_id", "uid", "pmid", "pmcid", "uuid"),
    "url": ("url", "source_url", "link", "uri"),
    "license": ("license", "licence", "rights"),
    "group": ("group", "group_id", "focus", "title", "url"),
    "title": ("title", "focus", "headline", "name"),
    "retrieved_at": ("retrieved_at", "retrieved", "crawled_at", "fetched_at", "date"),
}
"""For each field of a document, candidate names in any case, best first."""

STRING_FIELDS = ("group", "title", "url", "license")
"""Fields that only strings are taken for; ids and dates may be of any type."""

USUAL_SHARE = 0.5
"""A better name is taken for the text unless fewer than this share as many records have it as a string."""

JOINED = ("question", "answer")
"""Fields that are joined to a text if that is more often a text than any text field."""


def resolve_fields(listing: Listing, source: SourceConfig) -> FieldMapping:
    """Completes a source's field mapping from records all over its files; see `fields_from`."""
    return fields_from(count_fields(listing, source), listing, source)


def fields_from(counts: FieldCounts, listing: Listing, source: SourceConfig) -> FieldMapping:
    """Completes a source's field mapping from the fields that its records have; a missing field becomes empty.

    The text is the first of its candidate names that holds a string in at least `USUAL_SHARE` as many records as the
    most frequent one.

    Raises:
        InputError: none of the records has a field that the recipe names, or none has a text field.
    """
    wanted = source.fields
    if not counts.records:  # no readable record: the reader reports what is wrong with each
        return wanted.model_copy(update={"text": wanted.text or "text"})
    known = list_names(counts.describe()) or "none, the records have no fields"
    found: dict[str, str] = {}
    for field, names in NAMES.items():
        named = getattr(wanted, field)
        if named is None:
            found[field] = _guess_text(counts) if field == "text" else _guess(counts, field, names)
            continue
        missing = [] if named in counts.types else [part for part in named.split("+") if part not in counts.types]
        if named and missing:
            raise InputError(
                f"{listing.location}: the recipe's field for {field} is {named!r}, but its records have no "
                f"{missing[0]!r}; they have: {known}"
            )
        found[field] = named
    if not found["text"]:
        raise InputError(
            f"{listing.location}: no field looks like the document's text; name it in the recipe "
            f"(fields: {{text: ...}}; a field inside an object by its path, as data.text); "
            f"fields of the records ({counts.records:,} were read): {known}"
        )
    return FieldMapping(**found)


def _guess_text(counts: FieldCounts) -> str:
    """The text's field of its own; only where there is none, one inside an object, as `data.text`."""
    return _most_frequent_text(counts, _own_name) or _most_frequent_text(counts, _last_name)


def _most_frequent_text(counts: FieldCounts, named: Callable[[str], str]) -> str:
    candidates = {name: counts.strings(name) for name in _spellings(counts, NAMES["text"], named)}
    joined = [next(_spellings(counts, (name,), named), "") for name in JOINED]
    candidates["+".join(joined)] = min(counts.strings(name) for name in joined)
    most = max(candidates.values())
    return next(name for name, strings in candidates.items() if strings >= USUAL_SHARE * most) if most else ""


def _guess(counts: FieldCounts, field: str, names: tuple[str, ...]) -> str:
    count = counts.strings if field in STRING_FIELDS else counts.values
    return next((name for name in _spellings(counts, names, _own_name) if count(name)), "")


def _own_name(path: str) -> str:
    return path


def _last_name(path: str) -> str:
    return path.rpartition(".")[2]


def _spellings(counts: FieldCounts, names: tuple[str, ...], named: Callable[[str], str]) -> Iterator[str]:
    """The fields that have one of the names, written as here, else in other case."""
    for name in names:
        found = (path for path in counts.types if named(path).lower() == name)
        yield from sorted(found, key=lambda path: (named(path) != name, path))


def printable(sources: Mapping[str, SourceConfig]) -> tuple[list[str], list[list[str]]]:
    """Sources and their fields as a table: (columns, rows)."""
    fields = list(NAMES)
    rows = [
        [name, source.license or "", *(getattr(source.fields, field) or "-" for field in fields), source.location]
        for name, source in sources.items()
    ]
    return ["source", "licence", *fields, "location"], rows
