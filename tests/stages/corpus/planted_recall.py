"""Recall and precision of a corpus on a sample with planted defects, for each kind."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.corpus import source_listing, sources_in
from stages.corpus.reading.record import BadRecord
from stages.corpus.reading.records import format_of, read_records
from stages.store import Artifact, InputError

RULES: dict[str, tuple[str, ...]] = {
    "exact_duplicate": ("exact_duplicate",),
    "near_duplicate": ("near_duplicate",),
    "language": ("language",),
    "junk": ("quality", "repetition", "c4", "empty"),
    "contaminated": ("contaminated",),
}
"""For each planted kind that must be removed, prefixes of the rules that remove it."""

EDITS = {"boilerplate": "boilerplate", "personal_data": "personal_data"}
"""For each kind that must be edited, the name of the step."""

COLUMNS = ["kind", "planted", "found", "recall", "by_its_rules", "of_them_right", "precision"]

Key = tuple[str, str]
"""Source and uri of a document."""


@dataclass(frozen=True)
class _Outcome:
    removed: dict[Key, str]
    kept: dict[Key, tuple[str, list[str]]]


def measure(artifact: Artifact, truth: Path) -> dict[str, Any]:
    """Compares a corpus built from a sample with what was planted in it.

    `found` counts planted documents that are out of the corpus (whatever rule took them; for a pair of copies: one of
    the two), or that no longer hold the planted line or strings; edited kinds count only documents that stayed.
    Precision is over all documents that the kind's rules removed or its step edited; a removal is right if the
    document has any defect that is planted to be removed (word salad may go by its language).

    Args:
        truth: the sample's `truth.jsonl`; the sample's documents lie beside it.

    Returns:
        `{"columns": [...], "rows": [[...]]}`, a row a kind.
    """
    rows = _truth(truth)
    places = _places(truth.parent / "documents")
    outcome = _outcome(artifact)
    planted: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        planted[row["kind"]].append(row)
    planted_removals = {
        places[name] for row in rows if row["kind"] in RULES for name in (row["id"], row.get("of")) if name is not None
    }
    table = []
    for kind in sorted(planted):
        counted = _removed(planted[kind], kind, places, outcome, planted_removals) if kind in RULES else None
        table.append([kind, *(counted or _edited(planted[kind], kind, places, outcome))])
    return {"columns": COLUMNS, "rows": table}


def _removed(
    rows: list[dict[str, Any]], kind: str, places: dict[str, Key], outcome: _Outcome, planted_removals: set[Key]
) -> list[Any]:
    found = 0
    for row in rows:
        keys = {places[row["id"]]} | ({places[row["of"]]} if "of" in row else set())
        found += any(key in outcome.removed for key in keys)
    hits = {key for key, rule in outcome.removed.items() if rule.startswith(RULES[kind])}
    right = hits & planted_removals
    return [len(rows), found, _ratio(found, len(rows)), len(hits), len(right), _ratio(len(right), len(hits))]


def _edited(rows: list[dict[str, Any]], kind: str, places: dict[str, Key], outcome: _Outcome) -> list[Any]:
    present = [row for row in rows if places[row["id"]] in outcome.kept]
    found = 0
    for row in present:
        text = outcome.kept[places[row["id"]]][0]
        strings = row.get("strings") or [row["line"]]
        found += not any(string in text for string in strings)
    hits = {key for key, (_, steps) in outcome.kept.items() if EDITS[kind] in steps}
    right = hits & {places[row["id"]] for row in rows}
    return [len(present), found, _ratio(found, len(present)), len(hits), len(right), _ratio(len(right), len(hits))]


def _ratio(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def _truth(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read as a sample's truth: {error}") from error


def _places(documents: Path) -> dict[str, Key]:
    """Record id to (source, uri) for every record of the sample."""
    places: dict[str, Key] = {}
    for name, source in sources_in(str(documents)).items():
        listing = source_listing(source)
        for file in listing.files:
            for record in read_records(listing, file.name, format_of(file.name) or "jsonl"):
                if not isinstance(record.value, BadRecord):
                    places[record.value["id"]] = (name, f"{file.name}#{record.number}")
    return places


def _outcome(artifact: Artifact) -> _Outcome:
    removed: dict[Key, str] = {}
    kept: dict[Key, tuple[str, list[str]]] = {}
    for entry in artifact.files("removed/"):
        for row in pq.read_table(artifact.local(entry.path), columns=["source", "uri", "rule"]).to_pylist():
            removed[row["source"], row["uri"]] = row["rule"]
    for entry in [*artifact.files("documents/"), *artifact.files("heldout/")]:
        columns = ["source", "uri", "text", "steps"]
        for row in pq.ParquetFile(artifact.local(entry.path)).read(columns=columns).to_pylist():
            kept[row["source"], row["uri"]] = (row["text"], row["steps"])
    return _Outcome(removed, kept)
