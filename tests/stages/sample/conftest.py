"""One sample, generated once, for all tests that only read it."""

import gzip
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from stages.sample.biomed import generate
from stages.sample.finance import generate as generate_finance


def read_lines(path: Path) -> list[dict[str, Any]]:
    text = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    return [json.loads(line) for line in text.splitlines()]


@dataclass(frozen=True)
class Sample:
    """A generated folder, read back."""

    folder: Path
    megabytes: float
    counts: dict[str, Any]

    @cached_property
    def documents(self) -> dict[str, dict[str, str]]:
        """Records by id, with the folder's name as ``source``."""
        found: dict[str, dict[str, str]] = {}
        for path in sorted((self.folder / "documents").glob("*/*.jsonl.gz")):
            for row in read_lines(path):
                assert row["id"] not in found
                found[row["id"]] = row | {"source": path.parent.name}
        return found

    @cached_property
    def truth(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "truth.jsonl")

    @cached_property
    def clean(self) -> dict[str, dict[str, str]]:
        """Documents in which nothing is planted and which are no copies."""
        planted = {row["id"] for row in self.truth}
        return {name: row for name, row in self.documents.items() if name not in planted}

    def planted(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in self.truth if row["kind"] == kind]

    def questions(self, name: str) -> list[dict[str, Any]]:
        return read_lines(self.folder / "eval" / f"{name}.jsonl")


@pytest.fixture(scope="session")
def finance(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("finance")
    return Sample(folder, 1.0, generate_finance(folder, seed=1, megabytes=1.0))


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Sample:
    folder = tmp_path_factory.mktemp("sample")
    return Sample(folder, 3.0, generate(folder, seed=1, megabytes=3.0))
