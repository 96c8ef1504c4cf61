"""The account of a corpus: for each source the input, what became of it, and a check that nothing is missing."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from stages.store import Artifact, HeadwaterError

FAMILIES = (
    "policy",
    "personal_data",
    "exact_duplicate",
    "language",
    "quality",
    "repetition",
    "contaminated",
    "near_duplicate",
)
"""Columns of the summary for removed documents, in the order in which removals are attributed."""

COLUMNS = ["source", "in", "quarantined", *FAMILIES, "heldout", "kept", "bytes_in", "bytes_kept", "characters_kept"]


def family(rule: str) -> str:
    """The column that counts a rule; rules without a column of their own, such as C4's, are in `quality`."""
    if rule in FAMILIES:
        return rule
    start = rule.split("_")[0]
    return start if start in FAMILIES else "quality"


@dataclass
class SourceAccount:
    """What became of one source's records."""

    read: int = 0
    """Documents that could be read."""
    quarantined: int = 0
    blank: int = 0
    """Text files with nothing but white space: quarantined, but no sign of damage."""
    rest_lost: int = 0
    """Files that could not be read to their end, which lack an unknown number of records."""
    repeated_ids: int = 0
    """Records whose own id repeats an earlier one of the source."""
    removed: Counter[str] = field(default_factory=Counter)
    """By rule."""
    heldout: int = 0
    kept: int = 0
    bytes_in: int = 0
    """UTF-8 bytes of the text as read."""
    bytes_kept: int = 0
    """UTF-8 bytes of the text of training documents."""
    characters_kept: int = 0

    @property
    def records(self) -> int:
        """All input records."""
        return self.read + self.quarantined

    def check(self, source: str) -> None:
        """Checks that records = kept + heldout + removed + quarantined.

        Raises:
            HeadwaterError: they differ, which is a bug of this stage.
        """
        out = self.kept + self.heldout + sum(self.removed.values()) + self.quarantined
        if out != self.records:
            raise HeadwaterError(
                f"corpus: source {source} has {self.records} records, but {out} are accounted for; "
                "this is a bug of the corpus stage, please report it"
            )

    def row(self, source: str) -> list[Any]:
        """The source's row of the summary, see `COLUMNS`."""
        families: Counter[str] = Counter()
        for rule, count in self.removed.items():
            families[family(rule)] += count
        return [
            source,
            self.records,
            self.quarantined,
            *(families[name] for name in FAMILIES),
            self.heldout,
            self.kept,
            self.bytes_in,
            self.bytes_kept,
            self.characters_kept,
        ]


def table(accounts: dict[str, SourceAccount]) -> dict[str, Any]:
    """`{"columns": [...], "rows": [[...], ...]}`: a row for each source, and the total."""
    rows = [account.row(source) for source, account in accounts.items()]
    rows.append(["total", *(sum(row[i] for row in rows) for i in range(1, len(COLUMNS)))])
    return {"columns": COLUMNS, "rows": rows}


def counts(total: list[Any]) -> dict[str, int]:
    """The total row as the manifest's counts."""
    named = dict(zip(COLUMNS[1:], total[1:], strict=True))
    removed = {f"removed_{name}": named.pop(name) for name in FAMILIES}
    return {**named, **removed, "removed": sum(removed.values())}


def summary_rows(artifact: Artifact) -> tuple[list[str], list[list[Any]]]:
    """A corpus artifact's account as (columns, rows), for printing; the last row is the total."""
    content = json.loads(artifact.read("summary.json"))
    return content["table"]["columns"], content["table"]["rows"]
