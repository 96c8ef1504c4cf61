"""Writes a sample's files: each source's documents as compressed JSON Lines, and rows of questions and truth."""

from __future__ import annotations

import gzip
import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from stages.sample.document import Document
from stages.sample.forms import sentence

FILES = 4
"""Files in each source's folder."""


def write_documents(
    folder: Path, rng: random.Random, documents: dict[str, list[Document]], licenses: Mapping[str, str]
) -> dict[str, dict[str, Any]]:
    """Numbers each source's documents in a random order and writes them as `.jsonl.gz`; returns counts by source."""
    counts = {}
    for source, found in documents.items():
        rng.shuffle(found)
        for number, document in enumerate(found):
            document.number = number
            document.title = sentence(document.title, "")
            document.retrieved_at = f"2025-{1 + rng.randrange(12):02d}-{1 + rng.randrange(28):02d}T00:00:00Z"
        for part in range(FILES):
            rows = found[part * len(found) // FILES : (part + 1) * len(found) // FILES]
            path = folder / "documents" / source / f"{part:03d}.jsonl.gz"
            write_lines(path, (document.record(licenses[source]) for document in rows))
        size = sum(len(document.text.encode()) for document in found)
        counts[source] = {"license": licenses[source], "documents": len(found), "bytes": size}
    return counts


def write_rest(
    folder: Path,
    counts: Mapping[str, Mapping[str, Any]],
    truth: Sequence[dict[str, Any]],
    sets: Mapping[str, Sequence[dict[str, Any]]],
    facts: int,
    readme: str,
) -> dict[str, Any]:
    """Writes the truth about what was planted, the question sets and the README; returns the whole sample's counts.

    Args:
        counts: of each source, with `documents` and `bytes`.
        sets: questions by the set's name.
        facts: number of facts that the documents state.
    """
    write_lines(folder / "truth.jsonl", truth)
    for name, questions in sets.items():
        write_lines(folder / "eval" / f"{name}.jsonl", questions)
    (folder / "README.txt").write_text(readme, encoding="utf-8", newline="\n")
    return {
        "documents": sum(source["documents"] for source in counts.values()),
        "bytes": sum(source["bytes"] for source in counts.values()),
        "sources": counts,
        "planted": dict(sorted(Counter(row["kind"] for row in truth).items())),
        "facts": facts,
        "questions": {name: len(questions) for name, questions in sets.items()},
    }


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes JSON Lines, as gzip where the name ends in `.gz`; without name and time, which differ between runs."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()
    if path.suffix != ".gz":
        path.write_bytes(data)
        return
    with (
        path.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0, compresslevel=6) as file,
    ):
        file.write(data)
