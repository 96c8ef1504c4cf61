"""Parts of a source's token stream, encoded side by side, each a file that is whole or not there.

A part's file holds its tokens, one by one, with EOS behind each document; then the lines of its documents, as an Arrow
stream; then a footer of fixed size. It is written aside and renamed, so a killed process leaves whole files or none. A
machine that lost its power may leave one whose bytes never reached the disk: the footer's checksum tells, when a
second attempt finds it.
"""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.artifact.errors import InputError
from stages.tokens.encoder import Encoder
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

_FOOTER = struct.Struct("<8s16s4QI4x")
"""Format, key, tokens, bytes a token, bytes of lines, bytes of text, CRC-32 of all that stands before the footer."""
_FORMAT = b"hwpart01"
_READ = 1 << 22


@dataclass(frozen=True)
class Part:
    """A part on disk."""

    path: Path
    tokens: int
    """EOS included."""
    token_bytes: int
    line_bytes: int
    text_bytes: int

    def read(self, first: int, out: NDArray[Any]) -> None:
        """Fills `out`, one-dimensional and of the part's dtype, with the tokens from `first` on."""
        with self.path.open("rb", buffering=0) as file:
            file.seek(first * self.token_bytes)
            left = out.view(np.uint8).data
            while left:
                count = file.readinto(left)
                if not count:
                    raise OSError(f"{self.path} ends too early")
                left = left[count:]

    def lines(self) -> pa.Table:
        """Its documents, with the columns of `LINES`."""
        with self.path.open("rb") as file:
            file.seek(self.tokens * self.token_bytes)
            return pa.ipc.open_stream(file.read(self.line_bytes)).read_all()


def find_part(path: Path, key: bytes) -> Part | None:
    """The part that an earlier attempt left at `path`; None if there is none, another one, or a damaged one."""
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size - _FOOTER.size
            if size < 0:
                return None
            file.seek(size)
            layout, of, tokens, token_bytes, line_bytes, text_bytes, crc = _FOOTER.unpack(file.read())
            if (layout, of, tokens * token_bytes + line_bytes) != (_FORMAT, key, size):
                return None
            file.seek(0)
            return Part(path, tokens, token_bytes, line_bytes, text_bytes) if _crc(file, size) == crc else None
    except FileNotFoundError:
        return None


def write_part(
    path: Path, key: bytes, files: DocumentFiles, groups: RowGroups, encoder: Encoder, form: StreamFormat
) -> Part:
    """Encodes some row groups of a source. One batch of documents is held at a time, in text and in ids.

    Raises:
        InputError: a damaged file, or a tokenizer that takes text for its end of text.
    """
    aside = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    lines, tokens, crc = [], 0, 0
    try:
        with aside.open("wb") as file:
            for batch in files.read(groups):
                ids, offsets = encoder.encode(batch.column("text"))
                _check(ids, offsets, batch, form)
                stream = with_ends(ids, offsets, form.eos_id, form.dtype)
                content = stream.view(np.uint8).data
                crc = zlib.crc32(content, crc)
                file.write(content)
                lines.append(_lines(batch, np.diff(offsets)))
                tokens += len(stream)
            table = pa.Table.from_batches(lines, LINES)
            written = _stream(table)
            crc = zlib.crc32(written, crc)
            file.write(written)
            text_bytes = pc.sum(table["bytes"]).as_py() or 0
            sizes = (tokens, form.dtype.itemsize, len(written), text_bytes)
            file.write(_FOOTER.pack(_FORMAT, key, *sizes, crc))
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    return Part(path, *sizes)


@dataclass(frozen=True)
class PartedStream:
    """A source's whole token stream, in parts one behind the other."""

    parts: Sequence[Part]

    @property
    def tokens(self) -> int:
        """EOS included."""
        return sum(part.tokens for part in self.parts)

    def read(self, first: int, out: NDArray[Any]) -> None:
        """Fills `out` with the stream's tokens from `first` on."""
        starts = np.cumsum([0, *(part.tokens for part in self.parts)])
        number = int(np.searchsorted(starts, first, side="right")) - 1
        done = 0
        while done < len(out):
            here = first + done - int(starts[number])
            count = min(len(out) - done, self.parts[number].tokens - here)
            self.parts[number].read(here, out[done : done + count])
            done += count
            number += 1


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


def _crc(file: BinaryIO, size: int) -> int:
    crc = 0
    while size and (piece := file.read(min(size, _READ))):
        crc = zlib.crc32(piece, crc)
        size -= len(piece)
    return crc
