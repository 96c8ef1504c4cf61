"""Checks of whole files, of `stream.json` and of `token_bytes.npy`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from stages.store.manifest import FileEntry
from stages.tokens.reader import STREAM
from stages.tokens.verify.finding import Finding, Read

TOKEN_BYTES = "token_bytes.npy"
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Stream:
    """The content of `stream.json`."""

    sequence_length: int
    vocabulary_size: int
    eos_id: int
    shard_rows: int
    dtype: str


def check_bytes(folder: Path, entry: FileEntry, read: Read) -> Iterator[Finding]:
    """Compares the size and sha256 of one file with the manifest."""
    path = folder / entry.path
    if not path.is_file():
        yield Finding(entry.path, "bytes", "the file is missing")
        return
    size = path.stat().st_size
    if size != entry.bytes:
        yield Finding(entry.path, "bytes", f"the file has {size:,}, but {entry.bytes:,} in the manifest")
    elif hash_file(path, read) != entry.sha256:
        yield Finding(entry.path, "sha256", "differs from the manifest: the file has changed since it was written")


def hash_file(path: Path, read: Read) -> str:
    """The file's sha256; `read` is called with the bytes read."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
            read(len(chunk))
    return total.hexdigest()


def read_stream(folder: Path, config: Mapping[str, Any]) -> tuple[Stream | None, list[Finding]]:
    """`stream.json`, or None if it cannot be used, and its errors.

    Args:
        config: the whole config of the artifact.
    """
    try:
        info = json.loads((folder / STREAM).read_bytes())
    except (OSError, ValueError) as error:
        return None, [Finding(STREAM, "content", f"is not valid JSON: {error}")]
    for field in fields(Stream):
        value = info.get(field.name) if isinstance(info, dict) else None
        kind, description = (str, "a type") if field.name == "dtype" else (int, "an integer")
        if type(value) is not kind:
            return None, [Finding(STREAM, field.name, f"is {value!r}, which is not {description}")]
    stream = Stream(**{field.name: info[field.name] for field in fields(Stream)})
    findings = [
        Finding(STREAM, name, f"is {getattr(stream, name)}, but {config[name]} in the artifact's config")
        for name in ("sequence_length", "shard_rows")
        if name in config and config[name] != getattr(stream, name)
    ]
    if not 0 <= stream.eos_id < stream.vocabulary_size:
        findings.append(Finding(STREAM, "eos_id", f"is {stream.eos_id}, of {stream.vocabulary_size} tokens"))
    dtype = "uint16" if stream.vocabulary_size <= 1 << 16 else "uint32"
    if stream.dtype != dtype:
        findings.append(Finding(STREAM, "dtype", f"is {stream.dtype}; {stream.vocabulary_size} tokens need {dtype}"))
    usable = min(stream.sequence_length, stream.shard_rows) > 0
    return stream if usable else None, findings


def check_token_bytes(folder: Path, stream: Stream) -> Iterator[Finding]:
    """Checks the table of the bytes of each token: int32 [V], 0 for EOS."""
    try:
        table = np.load(folder / TOKEN_BYTES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        yield Finding(TOKEN_BYTES, "content", f"cannot be read: {error}")
        return
    if table.shape != (stream.vocabulary_size,) or table.dtype != np.int32:
        yield Finding(
            TOKEN_BYTES,
            "shape",
            f"is {table.dtype} {list(table.shape)}; vocabulary_size in {STREAM} needs int32 [{stream.vocabulary_size}]",
        )
    elif 0 <= stream.eos_id < len(table) and table[stream.eos_id]:
        yield Finding(STREAM, "eos_id", f"is {stream.eos_id}, a token with {table[stream.eos_id]} bytes of text")
