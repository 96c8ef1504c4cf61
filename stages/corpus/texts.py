"""A batch of texts in Arrow's layout: one buffer of UTF-8 and the offsets of the texts; and the hash that names a text.

Work on every byte of a corpus is done on such batches, without a Python object for each document.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


@dataclass(frozen=True)
class Texts:
    """n texts: text i is `data[offsets[i]:offsets[i + 1]]`, valid UTF-8."""

    data: NDArray[np.uint8]
    offsets: NDArray[np.int64]

    @classmethod
    def of(cls, texts: Iterable[str | bytes]) -> Texts:
        """A batch of strings (or of their UTF-8)."""
        encoded = [text.encode() if isinstance(text, str) else text for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(np.frombuffer(b"".join(encoded), np.uint8), offsets)

    @classmethod
    def from_arrow(cls, array: pa.Array | pa.ChunkedArray) -> Texts:
        """The texts of a string column without nulls; the bytes are copied only where the column has several chunks."""
        if isinstance(array, pa.ChunkedArray):
            array = (
                array.chunk(0) if array.num_chunks == 1 else pa.concat_arrays(array.chunks or [array.combine_chunks()])
            )
        if array.null_count:
            raise ValueError(f"a column of texts must have no nulls; this one has {array.null_count}")
        width = np.int64 if pa.types.is_large_string(array.type) else np.int32
        _, places, data = array.buffers()
        if len(array) == 0 or places is None:
            return cls(np.empty(0, np.uint8), np.zeros(1, np.int64))
        offsets = np.frombuffer(places, width)[array.offset : array.offset + len(array) + 1].astype(np.int64)
        flat = np.empty(0, np.uint8) if data is None else np.frombuffer(data, np.uint8)
        return cls(flat[offsets[0] : offsets[-1]], offsets - offsets[0])

    def to_arrow(self) -> pa.Array:
        """A string column over the same bytes (`large_string` from 2 GiB on)."""
        large = len(self.data) > np.iinfo(np.int32).max
        kind, width = (pa.large_string(), np.int64) if large else (pa.string(), np.int32)
        buffers = [None, pa.py_buffer(self.offsets.astype(width)), pa.py_buffer(np.ascontiguousarray(self.data))]
        return pa.Array.from_buffers(kind, len(self), buffers)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, i: int) -> str:
        """Text i as a string."""
        return self.bytes_of(i).decode()

    def bytes_of(self, i: int) -> bytes:
        """UTF-8 of text i."""
        return self.data[self.offsets[i] : self.offsets[i + 1]].tobytes()

    @property
    def sizes(self) -> NDArray[np.int64]:
        """Bytes of each text, int64[n]."""
        return np.diff(self.offsets)

    def replace(self, changed: dict[int, bytes]) -> Texts:
        """The batch with some texts replaced."""
        if not changed:
            return self
        parts: list[Any] = []
        sizes, start = self.sizes, 0
        for i in sorted(changed):
            parts += [self.data[self.offsets[start] : self.offsets[i]], changed[i]]
            sizes[i] = len(changed[i])
            start = i + 1
        parts.append(self.data[self.offsets[start] :])
        return Texts(np.frombuffer(b"".join(parts), np.uint8), np.concatenate([[0], np.cumsum(sizes)]))


def text_hash(text: str) -> str:
    """The hash that names a text: 128-bit BLAKE2b of its UTF-8, 32 hex digits."""
    return hashlib.blake2b(text.encode("utf-8"), digest_size=16).hexdigest()
