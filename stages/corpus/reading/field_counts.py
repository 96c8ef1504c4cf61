"""Which fields the records of a source have, and of which types, counted at places all over its files."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from stages.corpus.config import SourceConfig
from stages.corpus.reading.fields import paths_in, type_name
from stages.corpus.reading.listing import ListedFile, Listing
from stages.corpus.reading.parquet import spread_row_groups
from stages.corpus.reading.record import BadRecord, FileRange
from stages.corpus.reading.records import format_in, read_records

PLACES = 32
"""At most so many places are read, spread evenly over the bytes of a source's files in order of name."""
SAMPLED_RECORDS = 4096
"""Most records that are read, shared out equally among the places: of a compressed file its first ones, of a Parquet
file the first ones of row groups spread over it."""
RECORDS_IN_A_RANGE = 64
"""Most records of them that are read at a place inside a file that can be read from anywhere: more places tell more."""
SAMPLED_CHARACTERS = 64 << 20
"""Most characters that are read of strings, shared out likewise."""

CONSTANT_FIELDS = {"txt": ("text",), "fasta": ("id", "title", "text"), "fasta_upper": ("id", "title", "text")}
"""Fields of formats whose records always have the same ones."""


@dataclass
class FieldCounts:
    """How many of the records that were read have which fields."""

    records: int = 0
    types: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    """For each field, inside objects by its path, how often it has a value of which JSON type; blank strings are
    `empty string`."""

    def add(self, row: dict[str, Any]) -> int:
        """Counts a record; returns the characters of its strings."""
        self.records += 1
        characters = 0
        for name, value in paths_in(row):
            kind = type_name(value)
            if isinstance(value, str):
                characters += len(value)
                kind = kind if value and not value.isspace() else "empty string"
            self.types[name][kind] += 1
        return characters

    def strings(self, name: str) -> int:
        """Records in which a field is a string that is not blank."""
        return self._of(name)["string"]

    def values(self, name: str) -> int:
        """Records in which a field has a value that can be read."""
        found = self._of(name)
        return found.total() - found["null"] - found["unreadable"]

    def _of(self, name: str) -> Counter[str]:
        return self.types[name] if name in self.types else Counter()

    def describe(self) -> list[str]:
        """Each field with its types: `id (number)`, `data.text (string, null)`."""
        return [
            f"{name} ({', '.join(kind for kind, _ in counted.most_common())})"
            for name, counted in sorted(self.types.items())
        ]


def count_fields(listing: Listing, source: SourceConfig) -> FieldCounts:
    """Counts the fields of records at up to `PLACES` places in files of JSON Lines and Parquet; of a source without
    such files, the fields that its formats always have."""
    files = sorted(listing.files, key=lambda item: item.name)
    formats = {file.name: format_in(file.name, source) for file in files}
    counts = FieldCounts()
    keyed = [file for file in files if formats[file.name] in ("jsonl", "parquet")]
    if not keyed:
        for names in {CONSTANT_FIELDS[format] for format in formats.values() if format}:
            counts.add(dict.fromkeys(names, "a string"))
        return counts
    places = list(_places(listing, keyed, formats))
    for file_range in places:
        characters, limit = 0, SAMPLED_RECORDS // len(places)
        if file_range.end is not None:
            limit = min(limit, RECORDS_IN_A_RANGE)
        records = read_records(listing, file_range, formats[file_range.file])
        for record in islice(records, limit):
            if not isinstance(record.value, BadRecord):
                characters += counts.add(record.value)
            if characters > SAMPLED_CHARACTERS // len(places):
                break
    return counts


def _places(listing: Listing, files: list[ListedFile], formats: dict[str, str]) -> Iterator[FileRange]:
    """Ranges that begin at places spread evenly over the bytes of all files; none overlap."""
    total = max(1, sum(file.bytes for file in files))
    places, begin = PLACES, 0
    for file in files:
        # Of the equal steps through all bytes, those that fall into this file; files between two steps are passed over.
        first, last = -(-begin * places // total), -(-(begin + file.bytes) * places // total)
        begin += file.bytes
        parts = last - first if len(files) > places else max(1, last - first)
        if parts == 0:
            continue
        if file.name.lower().endswith(".gz"):
            yield FileRange(file.name)
        elif formats[file.name] == "parquet":
            yield from spread_row_groups(listing, file.name, parts)
        else:
            cuts = [file.bytes * part // parts for part in range(parts + 1)]
            yield from (FileRange(file.name, start, end) for start, end in pairwise(cuts))
