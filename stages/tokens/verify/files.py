"""Files as wholes, and the two small ones that say what the stream is."""

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
    """Size and sha256 of one file against the manifest's."""
    path = folder / entry.path
    if not path.is_file():
        yield Finding(entry.path, "bytes", "the file is missing")
        return
    size = path.stat().st_size
    if size != entry.bytes:
        yield Finding(entry.path, "bytes", f"the file has {size:,}, the manifest says {entry.bytes:,}")
    elif hashed(path, read) != entry.sha256:
        yield Finding(entry.path, "sha256", "the file's is not the manifest's: bytes have changed since it was written")


def hashed(path: Path, read: Read) -> str:
    """The file's sha256, telling how far the reading is."""
    total = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            total.update(chunk)
            read(len(chunk))
    return total.hexdigest()


def read_stream(folder: Path, asked: Mapping[str, Any]) -> tuple[Stream | None, list[Finding]]:
    """`stream.json`, and what is wrong with it; None where it cannot be used.

    Args:
        asked: the whole config that the artifact was made by.
    """
    try:
        info = json.loads((folder / STREAM).read_bytes())
    except (OSError, ValueError) as error:
        return None, [Finding(STREAM, "content", f"is no JSON: {error}")]
    for field in fields(Stream):
        value = info.get(field.name) if isinstance(info, dict) else None
        kind, told = (str, "a type") if field.name == "dtype" else (int, "a whole number")
        if type(value) is not kind:
            return None, [Finding(STREAM, field.name, f"is {value!r}, which is not {told}")]
    stream = Stream(**{field.name: info[field.name] for field in fields(Stream)})
    findings = [
        Finding(STREAM, name, f"is {getattr(stream, name)}, the config that it was made by says {asked[name]}")
        for name in ("sequence_length", "shard_rows")
        if name in asked and asked[name] != getattr(stream, name)
    ]
    if not 0 <= stream.eos_id < stream.vocabulary_size:
        findings.append(Finding(STREAM, "eos_id", f"is {stream.eos_id}, of {stream.vocabulary_size} tokens"))
    dtype = "uint16" if stream.vocabulary_size <= 1 << 16 else "uint32"
    if stream.dtype != dtype:
        findings.append(Finding(STREAM, "dtype", f"is {stream.dtype}; {stream.vocabulary_size} tokens need {dtype}"))
    usable = min(stream.sequence_length, stream.shard_rows) > 0
    return stream if usable else None, findings


def check_token_bytes(folder: Path, stream: Stream) -> Iterator[Finding]:
    """The table of bytes that each token stands for: int32 [V], 0 for EOS."""
    try:
        table = np.load(folder / TOKEN_BYTES, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        yield Finding(TOKEN_BYTES, "content", f"cannot be read: {error}")
        return
    if table.shape != (stream.vocabulary_size,) or table.dtype != np.int32:
        yield Finding(
            TOKEN_BYTES,
            "shape",
            f"is {table.dtype} {list(table.shape)}; {STREAM}'s vocabulary_size asks for int32 "
            f"[{stream.vocabulary_size}]",
        )
    elif 0 <= stream.eos_id < len(table) and table[stream.eos_id]:
        yield Finding(STREAM, "eos_id", f"is {stream.eos_id}, which stands for {table[stream.eos_id]} bytes of text")
