"""The files of a source, and the sources in a folder of documents that no recipe describes."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from pydantic import ValidationError

from stages.corpus.config import SourceConfig
from stages.corpus.reading.field_counts import count_fields
from stages.corpus.reading.guess import fields_from, resolve_fields
from stages.corpus.reading.listing import ListedFile, Listing, list_files
from stages.corpus.reading.names import make_name, mark_of
from stages.corpus.reading.records import ABOUT_FILES, PATTERNS, format_in
from stages.corpus.reading.unread import Unread, count_unread, describe_unread, no_reader
from stages.store import ConfigError, InputError

MOST_SUBFOLDERS = 64
"""With more subfolders than this a folder is one source: each source has a row of filler and a share of its own."""
NAME_CHARACTERS = 128
"""Most characters of a source's name, which is part of file names."""


def source_listing(source: SourceConfig) -> Listing:
    """The files of a source that can be read as documents, and what else is there.

    Raises:
        InputError: the source does not exist, or has no file that is read.
    """
    return readable(list_files(source.location, source.files, lambda name: why_unread(name, source)), source)


def readable(listing: Listing, source: SourceConfig) -> Listing:
    """A listing with only files that can be read as documents; the others are counted among what is not read.

    Raises:
        InputError: no file is left.
    """
    reasons = {file: why_unread(file.name, source) or ("" if file.bytes else "empty") for file in listing.files}
    files = tuple(file for file, reason in reasons.items() if not reason)
    unread = count_unread(((reason, file.name) for file, reason in reasons.items() if reason), listing.unread)
    if not files:
        raise InputError(
            f"{listing.location} has no documents; not read: {'; '.join(describe_unread(unread))}. "
            f"Files that are read: {', '.join(PATTERNS)}; others with the source's `format`"
        )
    return Listing(listing.location, files, unread)


def why_unread(name: str, source: SourceConfig) -> str:
    """Why a source's file of this name is not read; empty if it is."""
    if format_in(name, source):
        return ""
    if name.rsplit("/", 1)[-1].lower().removesuffix(".gz") in ABOUT_FILES:
        return "describes the folder, no document"
    return no_reader(name)


@dataclass
class FoundSources:
    """The sources in a folder, with what was guessed about them."""

    sources: dict[str, SourceConfig] = field(default_factory=dict)
    files: dict[str, int] = field(default_factory=dict)
    """How many files each has."""
    unread: tuple[Unread, ...] = ()
    """What none of the sources reads."""
    notes: list[str] = field(default_factory=list)
    """Decisions that a person should know of."""


def sources_in(location: str) -> dict[str, SourceConfig]:
    """The sources in a folder by name; see `find_sources`."""
    return find_sources(location).sources


def find_sources(location: str, settings: Mapping[str, Mapping[str, Any]] | None = None) -> FoundSources:
    """The sources in a folder: each subfolder is one, and the loose files at its top together.

    Loose files become several sources where formats or names of the text field differ. More than MOST_SUBFOLDERS
    subfolders are one source, with the loose files. Fields are guessed from the records, so that the guesses can be
    printed.

    Args:
        settings: what is known about sources, by their names: settings of `SourceConfig`.

    Raises:
        InputError: there are no documents, or no field of a source looks like a text.
        ConfigError: the settings name a source that was not found, or are invalid.
    """
    settings = settings or {}
    whole = source_listing(SourceConfig(location=location))
    found = FoundSources(unread=whole.unread)
    loose: list[ListedFile] = []
    below: dict[str, list[ListedFile]] = {}
    for file in whole.files:
        folder, slash, name = file.name.partition("/")
        if slash:
            below.setdefault(folder, []).append(replace(file, name=name))
        else:
            loose.append(file)
    if len(below) > MOST_SUBFOLDERS:
        found.notes.append(
            f"{len(below):,} subfolders have documents, more than {MOST_SUBFOLDERS}: everything in {location} is one "
            "source (a recipe can name more)"
        )
        proposals = [_Proposal("documents", "documents", whole)]
    else:
        proposals = [_Proposal(name, name, Listing(whole.path(name), tuple(files))) for name, files in below.items()]
        proposals += _of_loose_files(Listing(whole.location, tuple(loose)))
    named = _distinct_names(proposals)
    if unknown := sorted(settings.keys() - named.keys()):
        known = ", ".join(sorted(named))
        raise ConfigError(f"corpus.sources: {location} has no source {unknown[0]!r}; its sources: {known}")
    for name, proposal in sorted(named.items()):
        base = proposal.configure(name, settings.get(name, {}))
        try:
            counts = count_fields(proposal.listing, base)
            fields = fields_from(counts, proposal.listing, base)
        except InputError as error:
            raise InputError(f"{error}. To name it here: --set corpus.sources.{name}.fields.text=FIELD") from error
        if not counts.records:
            found.notes.append(
                f"source {name}: none of its records can be read, so its fields are not guessed from them"
            )
        found.sources[name] = base.model_copy(update={"fields": fields})
        found.files[name] = len(proposal.listing.files)
    return found


@dataclass(frozen=True)
class _Proposal:
    """A source before it has its final name."""

    label: str
    distinct_label: str
    """For where several sources have the label."""
    listing: Listing
    files: list[str] | None = None
    location: str = ""
    """Of a single file; else the listing's."""

    def configure(self, name: str, settings: Mapping[str, Any]) -> SourceConfig:
        """The source with these settings.

        Raises:
            ConfigError: a setting is unknown or invalid.
        """
        found = {"location": self.location or self.listing.location, "files": self.files}
        try:
            return SourceConfig.model_validate({**settings, **found})
        except ValidationError as error:
            detail = error.errors()[0]
            key = ".".join(map(str, (name, *detail["loc"])))
            reason = "unknown key" if detail["type"] == "extra_forbidden" else detail["msg"]
            raise ConfigError(f"corpus.sources.{key}: {reason.removeprefix('Value error, ')}") from None


def _of_loose_files(listing: Listing) -> list[_Proposal]:
    """Sources of the files directly in a folder: those of equal format and text field together."""
    base = SourceConfig(location=listing.location)
    groups: dict[tuple[str, str], list[ListedFile]] = {}
    for file in listing.files:
        format = format_in(file.name, base)
        alike = format not in ("jsonl", "parquet")  # these formats have no fields to choose from
        text = "text" if alike else _text_field(Listing(listing.location, (file,)), base)
        groups.setdefault((format, text), []).append(file)
    proposals = []
    formats = Counter(format for format, _ in groups)
    for (format, text), files in groups.items():
        own = Listing(listing.location, tuple(files))
        if len(files) == 1:
            name = files[0].name
            proposals.append(_Proposal(_stem(name), name, own, location=listing.path(name)))
            continue
        label = format if formats[format] == 1 else f"{format} {text}".rstrip()
        if len(groups) == 1:
            patterns = ["/*"]
        elif formats[format] == 1:
            patterns = sorted({f"/*{file.name[len(_stem(file.name)) :].lower()}" for file in files})
        else:
            patterns = [f"/{glob.escape(file.name)}" for file in files]
        proposals.append(_Proposal(label, f"{label} files", own, patterns))
    return proposals


def _text_field(listing: Listing, source: SourceConfig) -> str:
    """The field that is taken for the text; empty where none looks like one."""
    try:
        return str(resolve_fields(listing, source).text)
    except InputError:
        return ""


def _distinct_names(proposals: list[_Proposal]) -> dict[str, _Proposal]:
    """The proposals by names that a source may have, no two alike."""
    labels = Counter(_source_name(proposal.label) for proposal in proposals)
    named: dict[str, _Proposal] = {}
    for proposal in proposals:
        name = _source_name(proposal.label)
        if labels[name] > 1:
            name = _source_name(proposal.distinct_label)
        named[_unused(name, proposal.distinct_label, named)] = proposal
    return named


def _unused(name: str, label: str, used: Collection[str]) -> str:
    """The name, followed by its label's mark if it is used already, and a number if that is not enough."""
    if name not in used:
        return name
    marked = candidate = f"{name}-{mark_of(label)}"
    number = 1
    while candidate in used:
        number += 1
        candidate = f"{marked}-{number}"
    return candidate


def _source_name(label: str) -> str:
    made = make_name(label, "source", " _+-", "_", NAME_CHARACTERS)  # no full stop: it separates keys
    return made if made[:1].isalnum() else f"x{made}"


def _stem(name: str) -> str:
    for end in sorted((pattern[1:] for pattern in PATTERNS), key=len, reverse=True):
        if name.lower().endswith(end):
            return name[: -len(end)]
    return name
