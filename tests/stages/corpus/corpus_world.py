"""Small sources on disk, and what an artifact holds."""

from __future__ import annotations

import gzip
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from stages.store import Artifact

_LIST = "patient fever treatment dose liver kidney heart lung gene protein antibody infection virus bacteria"
WORDS = _LIST.split()


def sentence(number: int, length: int = 40) -> str:
    """English text that depends on `number` alone, with few word runs in common with that of another number."""
    state, found = number * 7919 + 17, []
    for _ in range(length):
        state = (state * 1103515245 + 12345) % 2**31
        found.append(WORDS[(state >> 8) % len(WORDS)])
    body = " and the ".join(" of ".join(found[i : i + 3]) for i in range(0, len(found), 3))
    return f"The report number {number} says that {body}."


def write_lines(path: Path, rows: Iterable[Mapping[str, Any] | bytes]) -> Path:
    """JSON Lines, compressed if the name says so; bytes are written as they are."""
    data = b"".join((row if isinstance(row, bytes) else json.dumps(row).encode()) + b"\n" for row in rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data, mtime=0) if path.suffix == ".gz" else data)
    return path


def rows_of(artifact: Artifact, prefix: str) -> list[dict[str, Any]]:
    """All rows of the artifact's Parquet files below a prefix."""
    files = [entry.path for entry in artifact.files(prefix) if entry.path.endswith(".parquet")]
    return [row for path in files for row in pq.ParquetFile(artifact.local(path)).read().to_pylist()]


def plain_words(text: str) -> list[str]:
    """Lower-case words without punctuation."""
    return re.findall(r"\w+", text.lower())


def hash64(text: str) -> int:
    """64-bit BLAKE2b of a string."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8"), digest_size=8).digest(), "little")
