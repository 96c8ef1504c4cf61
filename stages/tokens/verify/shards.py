"""Checks of the table of shards, and of every token of every shard."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.store.artifact import Artifact
from stages.tokens.table import SCHEMA, SHARDS
from stages.tokens.verify.documents import DocumentTable
from stages.tokens.verify.files import Stream, hash_file
from stages.tokens.verify.finding import Finding, Read

READERS = 4
"""Shards that are read at a time: hashing and numpy release the GIL."""

_BLOCK = 1 << 22
"""Tokens that are checked together."""


@dataclass(frozen=True)
class Shard:
    """A row of the table of shards."""

    file: str
    rows: int
    tokens: int
    bytes: int
    sha256: str


def read_shard_table(
    tokens: Artifact, folder: Path, split: str, stream: Stream
) -> tuple[dict[str, list[Shard]], list[Finding]]:
    """A split's shards by source, in order, and the errors in the table that lists them."""
    file = f"{split}{SHARDS}"
    try:
        table = pq.read_table(folder / file)
    except (OSError, pa.ArrowException) as error:
        return {}, [Finding(file, "content", f"cannot be read: {error}")]
    if table.schema != SCHEMA:
        return {}, [Finding(file, "columns", f"are {', '.join(map(str, table.schema))}")]
    found: dict[str, list[Shard]] = {}
    findings: list[Finding] = []
    for line in sorted(table.to_pylist(), key=lambda line: (line["source"], line["number"])):
        shards = found.setdefault(line["source"], [])
        if line["number"] != len(shards):
            findings.append(Finding(file, "number", f"shard {len(shards)} of source {line['source']!r} is missing"))
            return {}, findings
        name = f"{split}shards/{line['source']}/{line['number']:05}.arrow"
        shards.append(Shard(name, line["rows"], line["tokens"], line["bytes"], line["sha256"]))
    for shards in found.values():
        findings += _lengths(file, shards, stream)
    findings += _listing(tokens, file, split, [shard for shards in found.values() for shard in shards])
    return found, findings


def check_shards(
    folder: Path, shards: list[Shard], stream: Stream, table: DocumentTable | None, read: Read
) -> Iterator[Finding]:
    """Checks bytes, ids and ends of documents in all shards of a source, in parallel; at most one finding per shard.

    Args:
        table: the source's documents; None if that table is damaged: ends of documents are then not checked.
    """
    starts = np.cumsum([0, *(shard.rows * stream.sequence_length for shard in shards)])
    total = sum(shard.tokens for shard in shards)
    check = partial(_check, folder, stream, table, total, read)
    with ThreadPoolExecutor(READERS, "verify") as pool:
        try:
            for finding in pool.map(check, shards, starts[:-1].tolist()):
                if finding:
                    yield finding
        finally:
            pool.shutdown(cancel_futures=True)


def _lengths(file: str, shards: list[Shard], stream: Stream) -> Iterator[Finding]:
    """Checks that only the last shard of a source is shorter, and only its last row is padded."""
    for number, shard in enumerate(shards):
        last = number == len(shards) - 1
        if not (0 < shard.rows <= stream.shard_rows and (last or shard.rows == stream.shard_rows)):
            yield Finding(file, "rows", f"{shard.file} has {shard.rows}; shard_rows is {stream.shard_rows}")
        capacity = shard.rows * stream.sequence_length
        if not (shard.tokens == capacity or (last and 0 < capacity - shard.tokens < stream.sequence_length)):
            yield Finding(
                file, "tokens", f"{shard.file} has {shard.tokens:,} in {shard.rows} rows, which hold {capacity:,}"
            )


def _listing(tokens: Artifact, file: str, split: str, shards: list[Shard]) -> Iterator[Finding]:
    """Checks that the table and the manifest list the same shards, with the same checksums."""
    known = {entry.path: entry for entry in tokens.files(f"{split}shards/")}
    for shard in shards:
        entry = known.pop(shard.file, None)
        if entry is None:
            yield Finding(file, "number", f"{shard.file} is not in the manifest")
        elif entry.sha256 != shard.sha256:
            yield Finding(file, "sha256", f"{shard.file} has another one in the manifest")
        elif entry.bytes != shard.bytes:
            yield Finding(
                file, "bytes", f"{shard.file} has {entry.bytes:,} in the manifest, {shard.bytes:,} in the table"
            )
    for name in sorted(known):
        yield Finding(file, "number", f"{name} is in the manifest but not in the table")


def _check(
    folder: Path, stream: Stream, table: DocumentTable | None, total: int, read: Read, shard: Shard, start: int
) -> Finding | None:
    path = folder / shard.file
    if not path.is_file():
        return Finding(shard.file, "bytes", "the file is missing")
    size = path.stat().st_size
    if size != shard.bytes:
        truncated = ": it is truncated" if size < shard.bytes else ""
        return Finding(shard.file, "bytes", f"the file has {size:,}, but {shard.bytes:,} in {SHARDS}{truncated}")
    if hash_file(path, read) != shard.sha256:
        return Finding(shard.file, "sha256", f"differs from {SHARDS}: the file has changed")
    try:
        tokens = _tokens(path, shard, stream)
    except (OSError, pa.ArrowException, ValueError) as error:
        return Finding(shard.file, "tokens", str(error))
    for low in range(0, len(tokens), _BLOCK):
        finding = _check_block(shard.file, tokens[low : low + _BLOCK], start + low, stream, table, total)
        if finding:
            return finding
    return None


def _tokens(path: Path, shard: Shard, stream: Stream) -> NDArray[Any]:
    """All tokens of a shard, as a view of the mapped file.

    Raises:
        ValueError: the shard's format differs from `stream.json` or the table of shards.
    """
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    wanted = pa.list_(pa.type_for_alias(stream.dtype), stream.sequence_length)
    if file.schema.names != ["tokens"] or not file.schema.field(0).type.equals(wanted):
        found = file.schema.field("tokens").type if "tokens" in file.schema.names else f"columns {file.schema.names}"
        raise ValueError(f"are {found}; sequence_length and dtype in stream.json need {wanted}")
    if file.num_record_batches != 1 or file.get_batch(0).num_rows != shard.rows:
        raise ValueError(f"are not {shard.rows} rows (from {SHARDS}) in one batch")
    column = file.get_batch(0).column(0)
    if column.null_count or column.values.null_count:
        raise ValueError("have nulls")
    return column.flatten().to_numpy(zero_copy_only=True)


def _check_block(
    file: str, tokens: NDArray[Any], start: int, stream: Stream, table: DocumentTable | None, total: int
) -> Finding | None:
    """Checks tokens from position `start` of the stream; `total` tokens precede the padding of its last row."""
    highest = int(tokens.max())
    if highest >= stream.vocabulary_size:
        place = start + int(np.argmax(tokens))
        return Finding(
            file,
            "tokens",
            f"token {place:,} of the stream is {highest}, but the vocabulary has {stream.vocabulary_size}",
        )
    if table is None:
        return None
    end = start + len(tokens)
    padding = np.arange(max(start, total), end, dtype=np.int64)
    expected = np.concatenate([table.ends(start, min(end, total)), padding])
    found = np.flatnonzero(tokens == stream.eos_id) + start
    if np.array_equal(found, expected):
        return None
    return Finding(file, "tokens", _difference(found, expected, table, total))


def _difference(found: NDArray[np.int64], expected: NDArray[np.int64], table: DocumentTable, total: int) -> str:
    """Describes the first unexpected or missing EOS."""
    shorter = min(len(found), len(expected))
    differ = np.flatnonzero(found[:shorter] != expected[:shorter])
    at = int(differ[0]) if differ.size else shorter
    if at < len(found) and (at >= len(expected) or found[at] < expected[at]):
        return f"token {found[at]:,} of the stream is an EOS inside {table.at(int(found[at]))}"
    if expected[at] >= total:
        return f"token {expected[at]:,} of the stream is after the last document and is not EOS"
    return f"token {expected[at]:,} of the stream should be the EOS of {table.at(int(expected[at]))}"
