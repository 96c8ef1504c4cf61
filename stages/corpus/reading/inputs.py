"""The files that went into an artifact, noted beside it: a later plan can then say which of them have changed.

The note lies among the files that are not part of what an artifact is, so it changes no digest.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from stages.corpus.reading.listing import ListedFile, Listing
from stages.store import Artifact, ArtifactWriter

NOTE = "report/inputs.jsonl.gz"
"""A line a file: role, name, bytes, sha256."""


def note_inputs(inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Writes the files of every listing among a stage's inputs."""
    lines = [
        json.dumps([role, file.name, file.bytes, file.sha256], ensure_ascii=False).encode() + b"\n"
        for role, item in sorted(inputs.items())
        if isinstance(item, Listing)
        for file in item.files
    ]
    writer.put(NOTE, gzip.compress(b"".join(lines), mtime=0))


def noted_inputs(artifact: Artifact) -> dict[str, list[ListedFile]]:
    """Files by role; nothing where an artifact has no such note."""
    found: dict[str, list[ListedFile]] = {}
    if not artifact.files(NOTE):
        return found
    for line in gzip.decompress(artifact.read(NOTE)).splitlines():
        role, name, size, sha256 = json.loads(line)
        found.setdefault(role, []).append(ListedFile(name, size, sha256))
    return found
