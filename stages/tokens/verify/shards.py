"""The table of shards, and every token of every shard."""

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
from stages.tokens.verify.files import Stream, hashed
from stages.tokens.verify.finding import Finding, Read

READERS = 4
"""Shards that are read at a time: hashing and numpy let go of the interpreter's lock."""

_BLOCK = 1 << 22
"""Tokens that are looked at together."""


@dataclass(frozen=True)
class Shard:
    """A line of the table of shards."""

    file: str
    rows: int
    tokens: int
    bytes: int
    sha256: str


def read_shard_table(
    tokens: Artifact, folder: Path, part: str, stream: Stream
) -> tuple[dict[str, list[Shard]], list[Finding]]:
    """A part's shards by source, in order of number, and what is wrong with the table that lists them."""
    file = f"{part}{SHARDS}"
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
        name = f"{part}shards/{line['source']}/{line['number']:05}.arrow"
        shards.append(Shard(name, line["rows"], line["tokens"], line["bytes"], line["sha256"]))
    for shards in found.values():
        findings += _lengths(file, shards, stream)
    findings += _listing(tokens, file, part, [shard for shards in found.values() for shard in shards])
    return found, findings


def check_shards(
    folder: Path, shards: list[Shard], stream: Stream, table: DocumentTable | None, read: Read
) -> Iterator[Finding]:
    """Bytes, ids and ends of documents in all shards of a source, several at a time; at most one finding a shard.

    Args:
        table: the source's documents; None where that table is damaged: then ends are not looked at.
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
    """Only the last shard of a source is shorter, and only its last row is filled up."""
    for number, shard in enumerate(shards):
        last = number == len(shards) - 1
        if not (0 < shard.rows <= stream.shard_rows and (last or shard.rows == stream.shard_rows)):
            yield Finding(file, "rows", f"{shard.file} has {shard.rows}; shard_rows is {stream.shard_rows}")
        room = shard.rows * stream.sequence_length
        if not (shard.tokens == room or (last and 0 < room - shard.tokens < stream.sequence_length)):
            yield Finding(file, "tokens", f"{shard.file} has {shard.tokens:,} in {shard.rows} rows, room for {room:,}")


def _listing(tokens: Artifact, file: str, part: str, shards: list[Shard]) -> Iterator[Finding]:
    """The table names the shards that the manifest names, with the same checksums."""
    known = {entry.path: entry for entry in tokens.files(f"{part}shards/")}
    for shard in shards:
        entry = known.pop(shard.file, None)
        if entry is None:
            yield Finding(file, "number", f"{shard.file} is not among the artifact's files")
        elif entry.sha256 != shard.sha256:
            yield Finding(file, "sha256", f"{shard.file} has another one in the manifest")
        elif entry.bytes != shard.bytes:
            yield Finding(file, "bytes", f"{shard.file} has {entry.bytes:,} in the manifest, {shard.bytes:,} here")
    for name in sorted(known):
        yield Finding(file, "number", f"{name} is among the artifact's files and not in the table")


def _check(
    folder: Path, stream: Stream, table: DocumentTable | None, total: int, read: Read, shard: Shard, start: int
) -> Finding | None:
    path = folder / shard.file
    if not path.is_file():
        return Finding(shard.file, "bytes", "the file is missing")
    size = path.stat().st_size
    if size != shard.bytes:
        cut = ": it was cut short" if size < shard.bytes else ""
        return Finding(shard.file, "bytes", f"the file has {size:,}, {SHARDS} says {shard.bytes:,}{cut}")
    if hashed(path, read) != shard.sha256:
        return Finding(shard.file, "sha256", f"the file's is not the one in {SHARDS}: bytes have changed")
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
        ValueError: a shard of another shape than `stream.json` and the table of shards say.
    """
    file = pa.ipc.open_file(pa.memory_map(str(path)))
    wanted = pa.list_(pa.type_for_alias(stream.dtype), stream.sequence_length)
    if file.schema.names != ["tokens"] or not file.schema.field(0).type.equals(wanted):
        there = file.schema.field("tokens").type if "tokens" in file.schema.names else f"columns {file.schema.names}"
        raise ValueError(f"are {there}; stream.json (sequence_length, dtype) says {wanted}")
    if file.num_record_batches != 1 or file.get_batch(0).num_rows != shard.rows:
        raise ValueError(f"are not the {shard.rows} rows in one batch that {SHARDS} says")
    column = file.get_batch(0).column(0)
    if column.null_count or column.values.null_count:
        raise ValueError("some are missing (null)")
    return column.flatten().to_numpy(zero_copy_only=True)


def _check_block(
    file: str, tokens: NDArray[Any], start: int, stream: Stream, table: DocumentTable | None, total: int
) -> Finding | None:
    """Tokens from place `start` of the stream on; it has `total` before the filler of its last row."""
    highest = int(tokens.max())
    if highest >= stream.vocabulary_size:
        place = start + int(np.argmax(tokens))
        return Finding(
            file, "tokens", f"token {place:,} of the stream is {highest}; there are {stream.vocabulary_size}"
        )
    if table is None:
        return None
    end = start + len(tokens)
    filler = np.arange(max(start, total), end, dtype=np.int64)
    expected = np.concatenate([table.ends(start, min(end, total)), filler])
    found = np.flatnonzero(tokens == stream.eos_id) + start
    if np.array_equal(found, expected):
        return None
    return Finding(file, "tokens", _difference(found, expected, table, total))


def _difference(found: NDArray[np.int64], expected: NDArray[np.int64], table: DocumentTable, total: int) -> str:
    """The first place at which an end of text stands where none should, or none where one should."""
    shorter = min(len(found), len(expected))
    differ = np.flatnonzero(found[:shorter] != expected[:shorter])
    at = int(differ[0]) if differ.size else shorter
    if at < len(found) and (at >= len(expected) or found[at] < expected[at]):
        return f"token {found[at]:,} of the stream is an EOS in the middle of {table.at(int(found[at]))}"
    if expected[at] >= total:
        return f"token {expected[at]:,} of the stream lies after the last document and is no EOS"
    return f"token {expected[at]:,} of the stream should be the EOS of {table.at(int(expected[at]))}"
