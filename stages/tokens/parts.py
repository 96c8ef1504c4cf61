"""Parts of a source's token stream: encoded in parallel, each complete or absent after a crash.

A part's tokens are in the stream's shards (`shard_files.py`); its file has their position, and the rows of its
documents as an Arrow stream, followed by a footer of fixed size. It is written last, to a temporary name, and renamed,
so a killed process leaves only complete parts. After a power failure a part may lack bytes: a second attempt detects
this with the footer's checksums.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.store.errors import InputError
from stages.tokens.atomic_write import atomic_write
from stages.tokens.encoder import Encoder
from stages.tokens.shard_files import ShardFiles
from stages.tokens.stream import DocumentFiles, RowGroups, StreamFormat, append_eos

PART_DOCUMENTS = pa.schema(
    [
        ("doc_id", pa.string()),
        ("uri", pa.string()),
        ("license", pa.string()),
        ("length", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""A part's documents: `length` is tokens without EOS, `bytes` those of the text."""

_FOOTER = struct.Struct("<8s16s3QI")
"""Format, key, first token, tokens, bytes of text, CRC-32 of the tokens."""
_CRC = struct.Struct("<I")
"""Checksum of everything before it in the file."""
_FORMAT = b"hwpart02"


@dataclass(frozen=True)
class EncodedPart:
    """A part in memory."""

    tokens: Sequence[NDArray[Any]]
    """One array [n] per batch of documents, with an EOS after each document."""
    lines: pa.Table
    """Its documents, with the columns of `PART_DOCUMENTS`."""

    @property
    def count(self) -> int:
        """Tokens, including EOS."""
        return sum(map(len, self.tokens))


@dataclass(frozen=True)
class Part:
    """A part on disk."""

    path: Path
    start: int
    """Its first token in the stream."""
    count: int
    """Tokens, including EOS."""
    line_bytes: int
    text_bytes: int

    def lines(self) -> pa.Table:
        """Its documents, with the columns of `PART_DOCUMENTS`."""
        with self.path.open("rb") as file:
            return pa.ipc.open_stream(file.read(self.line_bytes)).read_all()


@dataclass(frozen=True)
class EncodedStream:
    """A source's whole token stream: its parts in order, and the shards that they were written to."""

    parts: Sequence[Part]
    shards: ShardFiles

    @property
    def tokens(self) -> int:
        """Including EOS."""
        return sum(part.count for part in self.parts)

    @property
    def text_bytes(self) -> int:
        return sum(part.text_bytes for part in self.parts)


def encode_part(files: DocumentFiles, groups: RowGroups, encoder: Encoder, form: StreamFormat) -> EncodedPart:
    """Encodes some row groups of a source, with the text of one batch of documents in memory at a time.

    Raises:
        InputError: a damaged file, or a tokenizer that encodes text as its EOS.
    """
    tokens, lines = [], []
    for batch in files.read(groups):
        ids, offsets = encoder.encode(batch.column("text"))
        _check(ids, offsets, batch, form)
        tokens.append(append_eos(ids, offsets, form.eos_id, form.dtype))
        lines.append(_lines(batch, np.diff(offsets)))
    return EncodedPart(tokens, pa.Table.from_batches(lines, PART_DOCUMENTS))


def write_part(path: Path, key: bytes, start: int, part: EncodedPart, shards: ShardFiles) -> Part:
    """Writes a part's tokens from the stream's token `start` on, then its file."""
    crc, at = 0, start
    for tokens in part.tokens:
        crc = zlib.crc32(tokens.view(np.uint8).data, crc)
        shards.write(at, tokens)
        at += len(tokens)
    content = _stream(part.lines)
    text_bytes = pc.sum(part.lines["bytes"]).as_py() or 0
    footer = _FOOTER.pack(_FORMAT, key, start, at - start, text_bytes, crc)
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        for data in (content, footer, _CRC.pack(zlib.crc32(footer, zlib.crc32(content)))):
            file.write(data)
    return Part(path, start, at - start, len(content), text_bytes)


def find_part(path: Path, key: bytes, shards: ShardFiles) -> Part | None:
    """The part of an earlier attempt; None if it does not exist, has another key, or is incomplete."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    end = len(content) - _CRC.size
    line_bytes = end - _FOOTER.size
    if line_bytes < 0 or _CRC.pack(zlib.crc32(memoryview(content)[:end])) != content[end:]:
        return None
    layout, of, start, tokens, text_bytes, crc = _FOOTER.unpack_from(content, line_bytes)
    if (layout, of) != (_FORMAT, key):
        return None
    found_crc, size = 0, 0
    for data in shards.read(start, tokens):
        found_crc, size = zlib.crc32(data, found_crc), size + len(data)
    complete = found_crc == crc and size == tokens * shards.form.dtype.itemsize
    return Part(path, start, tokens, line_bytes, text_bytes) if complete else None


def _check(ids: NDArray[np.uint32], offsets: NDArray[np.int64], batch: pa.RecordBatch, form: StreamFormat) -> None:
    """Raises InputError for ids that do not represent text."""
    if not len(ids):
        return
    if int(ids.max()) >= form.vocabulary_size:
        raise InputError(
            f"tokens: the tokenizer returned id {int(ids.max())} of {form.vocabulary_size} tokens; its files are "
            "inconsistent: save it again with `save_pretrained`, or train one"
        )
    ends = ids == form.eos_id
    if ends.any():
        document = int(np.searchsorted(offsets, int(ends.argmax()), side="right")) - 1
        raise InputError(
            f"tokens: the tokenizer encoded text as its end of text ({form.eos}), first in document "
            f"{batch.column('uri')[document]}, so the ends of documents are ambiguous; use another tokenizer, or "
            "train one"
        )


def _lines(batch: pa.RecordBatch, lengths: NDArray[np.int64]) -> pa.RecordBatch:
    texts = [batch.column(name).cast(pa.string()) for name in ("doc_id", "uri", "license")]
    sizes = pc.binary_length(batch.column("text")).cast(pa.int64())
    return pa.record_batch([*texts, pa.array(lengths), sizes], schema=PART_DOCUMENTS)


def _stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
