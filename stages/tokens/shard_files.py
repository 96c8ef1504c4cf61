"""Writing a source's token stream to its shards, in place and in any order.

Rows have a fixed size, and so has the header of an Arrow file with one batch: the place of token t of a stream is
computed. So a part is written directly to its place, from any thread, and finishing a shard copies nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from stages.store.hashing import sha256_file
from stages.tokens.stream import StreamFormat


class Frame(NamedTuple):
    """The bytes of a shard's file before the first row and after the last."""

    before: bytes
    after: bytes


@dataclass(frozen=True)
class ShardFiles:
    """The files of one stream's shards, in their own folder.

    Two processes may write the same stream at the same time: they write the same bytes.
    """

    folder: Path
    form: StreamFormat

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05}.arrow"

    def count(self, tokens: int) -> int:
        """Shards of a stream with this many tokens."""
        return -(-tokens // self.form.shard_tokens)

    def write(self, start: int, tokens: NDArray[Any]) -> None:
        """Writes tokens [n], of the stream's dtype, from the stream's token `start` on."""
        content, done = tokens.view(np.uint8).data, 0
        for path, place, size in self._places(start, len(tokens)):
            handle = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                _write(handle, content[done : done + size], place)
            finally:
                os.close(handle)
            done += size

    def read(self, start: int, count: int, chunk_bytes: int = 1 << 22) -> Iterator[bytes]:
        """The bytes of tokens `start` to `start + count`, in chunks; fewer if files are missing or too short."""
        for path, place, size in self._places(start, count):
            if path.exists():
                with path.open("rb", buffering=0) as file:
                    file.seek(place)
                    while size and (chunk := file.read(min(size, chunk_bytes))):
                        yield chunk
                        size -= len(chunk)

    def finish(self, number: int, total: int) -> dict[str, Any]:
        """Completes the file of shard `number` of a stream of `total` tokens, after all its tokens are written.

        The rest of the stream's last row is padded with EOS.

        Returns:
            Its row of `shards.parquet`, without `source`.
        """
        form, path = self.form, self.path(number)
        tokens = min(total - number * form.shard_tokens, form.shard_tokens)
        rows = -(-tokens // form.sequence_length)
        frame = shard_frame(form, rows)
        padding = np.full(rows * form.sequence_length - tokens, form.eos_id, form.dtype)
        place = len(frame.before) + tokens * form.dtype.itemsize
        handle = os.open(path, os.O_WRONLY)
        try:
            _write(handle, memoryview(frame.before), 0)
            _write(handle, padding.view(np.uint8).data, place)
            _write(handle, memoryview(frame.after), place + padding.nbytes)
            size = place + padding.nbytes + len(frame.after)
            os.ftruncate(handle, size)
        finally:
            os.close(handle)
        return {"number": number, "rows": rows, "tokens": tokens, "bytes": size, "sha256": sha256_file(path)}

    def _places(self, start: int, count: int) -> Iterator[tuple[Path, int, int]]:
        """(file, offset in it, bytes) of the tokens from `start` on, by file."""
        end, width = start + count, self.form.dtype.itemsize
        while start < end:
            number, inside = divmod(start, self.form.shard_tokens)
            count_here = min(end - start, self.form.shard_tokens - inside)
            yield self.path(number), self._first + inside * width, count_here * width
            start += count_here

    @cached_property
    def _first(self) -> int:
        return len(shard_frame(self.form, 1).before)


def shard_frame(form: StreamFormat, rows: int) -> Frame:
    """What Arrow writes around the tokens of a shard of `rows` rows."""
    # Arrow passes the values as one buffer to the file; it is never read, so its pages take no memory.
    values = pa.array(np.zeros(rows * form.sequence_length, form.dtype))
    batch = pa.record_batch([pa.FixedSizeListArray.from_arrays(values, form.sequence_length)], names=["tokens"])
    recorder = _FrameRecorder()
    with pa.PythonFile(recorder, "w") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Frame(bytes(recorder.before), bytes(recorder.after))


class _FrameRecorder:
    """A file object that records the bytes written before and after the one buffer of values."""

    closed = False

    def __init__(self) -> None:
        self.before, self.after = bytearray(), bytearray()
        self._at, self._passed_values = 0, False

    def write(self, data: bytes | pa.Buffer) -> int:
        if isinstance(data, pa.Buffer):
            assert not self._passed_values, "a shard has one buffer"
            self._passed_values = True
        else:
            part = self.after if self._passed_values else self.before
            part += data
        self._at += len(data)
        return len(data)

    def tell(self) -> int:
        return self._at

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


def _write(handle: int, content: memoryview, place: int) -> None:
    while content:
        count = os.pwrite(handle, content, place)
        content, place = content[count:], place + count
