"""The list of an artifact's input files, stored with it, so that a later plan can say which of them have changed.

The list is a report file, which is not part of the artifact's digest.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from typing import Any

from stages.corpus.reading.listing import ListedFile, Listing
from stages.store import Artifact, ArtifactWriter

INPUT_LIST = "report/inputs.jsonl.gz"
"""One line for each file: role, name, bytes, sha256."""


def write_input_list(inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Writes the list of files of all listings among a stage's inputs."""
    lines = [
        json.dumps([role, file.name, file.bytes, file.sha256], ensure_ascii=False).encode() + b"\n"
        for role, item in sorted(inputs.items())
        if isinstance(item, Listing)
        for file in item.files
    ]
    writer.put(INPUT_LIST, gzip.compress(b"".join(lines), mtime=0))


def read_input_list(artifact: Artifact) -> dict[str, list[ListedFile]]:
    """Input files by role; empty if the artifact has no list."""
    found: dict[str, list[ListedFile]] = {}
    if not artifact.files(INPUT_LIST):
        return found
    for line in gzip.decompress(artifact.read(INPUT_LIST)).splitlines():
        role, name, size, sha256 = json.loads(line)
        found.setdefault(role, []).append(ListedFile(name, size, sha256))
    return found
