"""What `benchmarks/corpus.py` runs and compares: jobs with their times, and ratios."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from corpus_data import Corpus


@dataclass
class Job:
    """Something to measure a few times."""

    name: str
    python: Path
    script: str
    job: str
    corpus: Corpus
    options: Mapping[str, Any] = field(default_factory=dict)
    times: int = 1
    seconds: list[float] = field(default_factory=list)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def rate(self) -> float | None:
        """Median megabytes a second."""
        return self.corpus.megabytes / median(self.seconds) if self.seconds else None

    def report(self) -> dict[str, Any]:
        """For the JSON."""
        rates = sorted(self.corpus.megabytes / seconds for seconds in self.seconds)
        return {
            "megabytes": round(self.corpus.megabytes, 2),
            "documents": self.corpus.documents,
            "seconds": [round(seconds, 3) for seconds in self.seconds],
            "megabytes_per_second": {"median": self.rate, "least": rates[0], "most": rates[-1]} if rates else None,
        }


def ratio(ours: Job, other: Job) -> float | None:
    """How many times as fast ours is, by the medians."""
    return ours.rate / other.rate if ours.rate and other.rate else None
