"""What `benchmarks/corpus.py` runs and compares: jobs with their times, ratios, the machine, the versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
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


def machine() -> dict[str, Any]:
    """What this ran on, and its rate: bytes that one core copies in memory, read and written, best of five."""
    source = np.ones(1 << 27, np.uint8)
    target = np.empty_like(source)
    best = float("inf")
    for _ in range(6):
        began = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - began)
    names = [line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "memory_copy_gigabytes_per_second": round(2 * source.nbytes / best / 1e9, 2),
    }


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []


def versions(rivals: Path) -> dict[str, str]:
    """Versions of ours and of what it is measured against."""
    found = {name: importlib.metadata.version(name) for name in ("numba", "numpy", "pyarrow")}
    for name in ("datatrove", "spacy", "xxhash", "rensa", "dolma"):
        infos = list(rivals.parent.parent.glob(f"lib/python*/site-packages/{name}-*.dist-info"))
        found[f"{name} (rivals)"] = infos[0].name.removesuffix(".dist-info").split("-", 1)[1] if infos else "missing"
    return found
