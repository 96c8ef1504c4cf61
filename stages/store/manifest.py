"""Identity of an artifact: its plan (fingerprint), its result (digest) and the manifest that records both."""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, AliasChoices, AwareDatetime, BaseModel, ConfigDict, Field, TypeAdapter

from stages.store.config import canonical_json
from stages.store.errors import StoreError
from stages.store.fields import FilePath, Fingerprint, Kind, Printable, RunId, Sha256, describe
from stages.store.names import check_distinct

MANIFEST = "manifest.json"
"""File name of the manifest; written last, created exclusively. A folder without one is not an artifact."""

UNHASHED = ("manifest.json", "events.jsonl", "events/", "report/", "lease-")
"""Path prefixes of files that describe an artifact and are not part of its digest."""


class FileEntry(BaseModel):
    """One file of an artifact."""

    model_config = ConfigDict(frozen=True)
    path: FilePath
    """Relative to the artifact, `/`-separated."""
    bytes: int = Field(ge=0)
    sha256: Sha256


def _check_files(files: list[FileEntry]) -> list[FileEntry]:
    check_distinct(entry.path for entry in files)
    return files


FileList = Annotated[list[FileEntry], AfterValidator(_check_files)]
_FILE_LIST = TypeAdapter(FileList)


class Manifest(BaseModel):
    """The record of one artifact, as JSON in `manifest.json`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)
    schema_version: Literal[1] = 1
    kind: Kind
    """The stage that built it: sample, corpus, tokens, training, model, evaluation, verdict."""
    fingerprint: Fingerprint
    """Identifies the plan: hash of stage, stage version, canonical config and input digests (32 hex digits)."""
    digest: Sha256
    """Identifies the result: hash over the files (64 hex digits)."""
    run: RunId | None = None
    """Eight hex digits for stages with separate runs (training); else absent."""
    stage_version: int
    config: dict[str, Any]
    """The canonical config: without fields at their default and without run-time settings."""
    resolved_config: dict[str, Any] = Field(
        default_factory=dict, validation_alias=AliasChoices("resolved_config", "how")
    )
    """The whole config as it was run, defaults, workers and paths included; informative only. Older stores have it
    under the key `how`."""
    inputs: dict[Printable, Printable]
    """Digest of each input, by role."""
    files: FileList
    counts: dict[str, int] = Field(default_factory=dict)
    metrics: dict[str, float] = Field(default_factory=dict)
    details: dict[str, Any] = Field(default_factory=dict)
    """Small structured results, to be shown without opening a file."""
    software: dict[str, str] = Field(default_factory=dict)
    started: AwareDatetime
    finished: AwareDatetime


def parse_files(record: Any, where: str) -> list[FileEntry]:
    """The files that a record of the store lists under `files`: a checkpoint's manifest, a run's outcome.

    Args:
        where: the record's place, for messages.

    Raises:
        StoreError: they are not such a list, or one has a path that is refused.
    """
    try:
        return _FILE_LIST.validate_python(record["files"])
    except (KeyError, IndexError, TypeError, ValueError) as error:  # pydantic's ValidationError is a ValueError
        raise StoreError(f"{where} does not list its files: {describe(error)}") from error


def fingerprint(kind: str, version: int, config: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
    """Identifies a plan: blake2b over stage, stage version, canonical config and input digests; 32 hex digits."""
    plan = {"stage": kind, "version": version, "config": config, "inputs": dict(inputs)}
    return hashlib.blake2b(canonical_json(plan), digest_size=16).hexdigest()


def digest(files: Iterable[FileEntry]) -> str:
    """Identifies a result: sha256 over its (path, sha256), sorted by path; 64 hex digits."""
    total = hashlib.sha256()
    for entry in sorted(files, key=lambda item: item.path):
        if not entry.path.startswith(UNHASHED):
            total.update(f"{entry.path}\0{entry.sha256}\n".encode())
    return total.hexdigest()


def software_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python and of those of the packages that are installed."""
    installed = {name: _version(name) for name in packages}
    return {"python": platform.python_version()} | {name: version for name, version in installed.items() if version}


@cache
def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)  # parses the package's whole metadata: 10 ms
    except importlib.metadata.PackageNotFoundError:
        return None
