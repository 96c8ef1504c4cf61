"""A source's token stream in its shards, written in place and in any order.

Rows have a fixed size, and so has what an Arrow file says before its only batch: where token t of a stream lies is
arithmetic. So a part goes straight to its place, from any thread, and nothing is copied when all are there.
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
    """The bytes of a shard's file that are not tokens: before the first row, and behind the last."""

    before: bytes
    behind: bytes


@dataclass(frozen=True)
class ShardFiles:
    """The files of one stream's shards, in a folder of their own.

    Two that write the same stream may do so at the same time: each byte is the same whoever writes it.
    """

    folder: Path
    form: StreamFormat

    def path(self, number: int) -> Path:
        return self.folder / f"{number:05}.arrow"

    def count(self, tokens: int) -> int:
        """Shards of a stream of so many tokens."""
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

    def read(self, start: int, count: int, most: int = 1 << 22) -> Iterator[bytes]:
        """The bytes of tokens `start` to `start + count`, in pieces; fewer where files are missing or too short."""
        for path, place, size in self._places(start, count):
            if path.exists():
                with path.open("rb", buffering=0) as file:
                    file.seek(place)
                    while size and (piece := file.read(min(size, most))):
                        yield piece
                        size -= len(piece)

    def finish(self, number: int, total: int) -> dict[str, Any]:
        """Makes the file of shard `number` of a stream of `total` tokens whole, when its tokens are there.

        What is missing in the stream's last row is filled with EOS.

        Returns:
            Its line for `shards.parquet`, without `source`.
        """
        form, path = self.form, self.path(number)
        tokens = min(total - number * form.shard_tokens, form.shard_tokens)
        rows = -(-tokens // form.sequence_length)
        frame = shard_frame(form, rows)
        fill = np.full(rows * form.sequence_length - tokens, form.eos_id, form.dtype)
        place = len(frame.before) + tokens * form.dtype.itemsize
        handle = os.open(path, os.O_WRONLY)
        try:
            _write(handle, memoryview(frame.before), 0)
            _write(handle, fill.view(np.uint8).data, place)
            _write(handle, memoryview(frame.behind), place + fill.nbytes)
            size = place + fill.nbytes + len(frame.behind)
            os.ftruncate(handle, size)
        finally:
            os.close(handle)
        return {"number": number, "rows": rows, "tokens": tokens, "bytes": size, "sha256": sha256_file(path)}

    def _places(self, start: int, count: int) -> Iterator[tuple[Path, int, int]]:
        """(file, byte in it, bytes) of each piece of a run of tokens."""
        end, width = start + count, self.form.dtype.itemsize
        while start < end:
            number, inside = divmod(start, self.form.shard_tokens)
            here = min(end - start, self.form.shard_tokens - inside)
            yield self.path(number), self._first + inside * width, here * width
            start += here

    @cached_property
    def _first(self) -> int:
        return len(shard_frame(self.form, 1).before)


def shard_frame(form: StreamFormat, rows: int) -> Frame:
    """What Arrow writes around the tokens of a shard of `rows` rows."""
    # Arrow hands over the values as the buffer that they lie in; this one is never touched, so it takes no memory.
    values = pa.array(np.zeros(rows * form.sequence_length, form.dtype))
    batch = pa.record_batch([pa.FixedSizeListArray.from_arrays(values, form.sequence_length)], names=["tokens"])
    around = _Around()
    with pa.PythonFile(around, "w") as sink, pa.ipc.new_file(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return Frame(bytes(around.before), bytes(around.behind))


class _Around:
    """A file that keeps what is written to it before and behind the one buffer of values."""

    closed = False

    def __init__(self) -> None:
        self.before, self.behind = bytearray(), bytearray()
        self._at, self._met = 0, False

    def write(self, data: bytes | pa.Buffer) -> int:
        if isinstance(data, pa.Buffer):
            assert not self._met, "a shard has one buffer"
            self._met = True
        else:
            part = self.behind if self._met else self.before
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
