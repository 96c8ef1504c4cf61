"""Parts of a source's token stream: encoded side by side, each there as a whole or not there.

A part's tokens stand in the stream's shards (`shard_files.py`); its file says where, and holds the lines of its
documents as an Arrow stream, behind them a footer of fixed size. It is written last, aside, and renamed, so a killed
process leaves whole parts or none. A machine that lost its power may leave one whose bytes never reached the disk: the
footer's checksums tell, when a second attempt finds it.
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
from stages.tokens.aside import written_aside
from stages.tokens.encoder import Encoder
from stages.tokens.shard_files import ShardFiles
from stages.tokens.stream import DocumentFiles, RowGroups, StreamFormat, with_ends

LINES = pa.schema(
    [
        ("doc_id", pa.string()),
        ("uri", pa.string()),
        ("license", pa.string()),
        ("length", pa.int64()),
        ("bytes", pa.int64()),
    ]
)
"""A part's documents: tokens of each without EOS, bytes of its text."""

_FOOTER = struct.Struct("<8s16s3QI")
"""Format, key, first token, tokens, bytes of text, CRC-32 of the tokens."""
_CRC = struct.Struct("<I")
"""Of all that stands in the file before it."""
_FORMAT = b"hwpart02"


@dataclass(frozen=True)
class EncodedPart:
    """A part in memory."""

    tokens: Sequence[NDArray[Any]]
    """One array [n] a batch of documents, EOS behind each document."""
    lines: pa.Table
    """Its documents, with the columns of `LINES`."""

    @property
    def count(self) -> int:
        """Tokens, EOS included."""
        return sum(map(len, self.tokens))


@dataclass(frozen=True)
class Part:
    """A part on disk."""

    path: Path
    start: int
    """Its first token in the stream."""
    count: int
    """Tokens, EOS included."""
    line_bytes: int
    text_bytes: int

    def lines(self) -> pa.Table:
        """Its documents, with the columns of `LINES`."""
        with self.path.open("rb") as file:
            return pa.ipc.open_stream(file.read(self.line_bytes)).read_all()


@dataclass(frozen=True)
class PartedStream:
    """A source's whole token stream: its parts one behind the other, and the shards that they were written to."""

    parts: Sequence[Part]
    shards: ShardFiles

    @property
    def tokens(self) -> int:
        """EOS included."""
        return sum(part.count for part in self.parts)

    @property
    def text_bytes(self) -> int:
        return sum(part.text_bytes for part in self.parts)


def encode_part(files: DocumentFiles, groups: RowGroups, encoder: Encoder, form: StreamFormat) -> EncodedPart:
    """Encodes some row groups of a source; one batch of documents is held at a time in text.

    Raises:
        InputError: a damaged file, or a tokenizer that takes text for its end of text.
    """
    tokens, lines = [], []
    for batch in files.read(groups):
        ids, offsets = encoder.encode(batch.column("text"))
        _check(ids, offsets, batch, form)
        tokens.append(with_ends(ids, offsets, form.eos_id, form.dtype))
        lines.append(_lines(batch, np.diff(offsets)))
    return EncodedPart(tokens, pa.Table.from_batches(lines, LINES))


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
    with written_aside(path) as aside, aside.open("wb") as file:
        for piece in (content, footer, _CRC.pack(zlib.crc32(footer, zlib.crc32(content)))):
            file.write(piece)
    return Part(path, start, at - start, len(content), text_bytes)


def find_part(path: Path, key: bytes, shards: ShardFiles) -> Part | None:
    """The part that an earlier attempt left; None if there is none, another one, or one that is not whole."""
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
    there, size = 0, 0
    for piece in shards.read(start, tokens):
        there, size = zlib.crc32(piece, there), size + len(piece)
    whole = there == crc and size == tokens * shards.form.dtype.itemsize
    return Part(path, start, tokens, line_bytes, text_bytes) if whole else None


def _check(ids: NDArray[np.uint32], offsets: NDArray[np.int64], batch: pa.RecordBatch, form: StreamFormat) -> None:
    """Refuses ids that stand for something else than text."""
    if not len(ids):
        return
    if int(ids.max()) >= form.vocabulary_size:
        raise InputError(
            f"tokens: the tokenizer gives id {int(ids.max())}, and has {form.vocabulary_size} tokens; its files do not "
            "belong together. Save it again with `save_pretrained`, or train one"
        )
    ends = ids == form.eos_id
    if ends.any():
        document = int(np.searchsorted(offsets, int(ends.argmax()), side="right")) - 1
        raise InputError(
            f"tokens: the tokenizer turned text into its own end of text ({form.eos}), first in document "
            f"{batch.column('uri')[document]}; documents could not be told apart. Use another tokenizer, or train one"
        )


def _lines(batch: pa.RecordBatch, lengths: NDArray[np.int64]) -> pa.RecordBatch:
    texts = [batch.column(name).cast(pa.string()) for name in ("doc_id", "uri", "license")]
    sizes = pc.binary_length(batch.column("text")).cast(pa.int64())
    return pa.record_batch([*texts, pa.array(lengths), sizes], schema=LINES)


def _stream(table: pa.Table) -> pa.Buffer:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return sink.getvalue()
