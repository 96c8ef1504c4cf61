"""The header of a GGUF file, read within bounds: settings and the table of tensors.

The libraries that read GGUF trust the file: a count of 2**60 makes them loop, and what lies behind the end of the file
is read as nothing. So the header is checked here first, whole, before they see the file. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import math
import mmap
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

MAGIC = b"GGUF"
VERSIONS = (2, 3)
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
"""`struct`'s letters of the fixed-size types of settings."""
_STRING, _ARRAY = 8, 9
_MOST_SETTINGS, _MOST_TENSORS, _MOST_ELEMENTS, _MOST_DIMENSIONS = 10_000, 1_000_000, 4_000_000, 4
_MOST_HEADER_BYTES = 256 << 20
"""Bounds of a header that are far above those of any model: 4 million tokens, say."""


@dataclass(frozen=True)
class Array:
    """An array among the settings: its elements where they are texts, else their number alone."""

    count: int
    texts: tuple[str, ...] | None = None


@dataclass(frozen=True)
class TensorEntry:
    """One line of the table of tensors."""

    name: str
    shape: tuple[int, ...]
    """As in PyTorch: the dimension whose numbers are next to each other is the last."""
    type: int
    """ggml's number of the quantization type."""
    offset: int
    """Of the first byte, from the beginning of the file."""
    bytes: int


@dataclass(frozen=True)
class Header:
    """What a file says before its first number."""

    settings: dict[str, Any]
    """By key: numbers, truths, texts, or `Array`."""
    tensors: dict[str, TensorEntry]

    def text(self, key: str) -> str | None:
        """A setting that is text; None if there is none, or it is not text."""
        value = self.settings.get(key)
        return value if isinstance(value, str) else None

    def integer(self, key: str) -> int | None:
        """A setting that is an integer; None if there is none, or it is something else."""
        value = self.settings.get(key)
        return value if type(value) is int else None

    def texts(self, key: str) -> tuple[str, ...]:
        """A setting that is an array of texts; empty if there is none."""
        value = self.settings.get(key)
        return (value.texts or ()) if isinstance(value, Array) else ()


def read_header(path: Path) -> Header:
    """Reads and checks a file's header; every tensor lies within the file.

    Raises:
        ValueError: it is not a GGUF file of version 2 or 3, it is truncated or damaged, or a tensor is of a
            quantization type that cannot be read.
    """
    with path.open("rb") as file:
        if path.stat().st_size < 24 or file.read(4) != MAGIC:
            raise ValueError("it does not begin as a GGUF file does; take the original file")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _Reader(content).header()


class _Reader:
    """Reads values one after the other."""

    def __init__(self, content: mmap.mmap):
        self._content, self._size, self._at = content, len(content), len(MAGIC)

    def header(self) -> Header:
        version = self._number("I")
        if version not in VERSIONS:
            wanted = " and ".join(map(str, VERSIONS))
            raise ValueError(f"it is of GGUF version {version}; versions {wanted}, little-endian, are read")
        tensors, settings = self._number("Q"), self._number("Q")
        if tensors > _MOST_TENSORS or settings > _MOST_SETTINGS:
            raise ValueError(f"its header counts {tensors:,} tensors and {settings:,} settings; it is damaged")
        found: dict[str, Any] = {}
        for _ in range(settings):
            key = self._text()
            if key in found:
                raise ValueError(f"its header has {key!r} twice; it is damaged")
            found[key] = self._value(key)
        alignment = found.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 1 << 20 or alignment & (alignment - 1):
            raise ValueError(f"general.alignment is {alignment!r}; must be a power of two")
        entries = [self._tensor() for _ in range(tensors)]
        start = -(-self._at // alignment) * alignment
        return Header(found, self._place(entries, start, alignment))

    def _place(
        self, entries: list[tuple[str, tuple[int, ...], int, int]], start: int, alignment: int
    ) -> dict[str, TensorEntry]:
        placed: dict[str, TensorEntry] = {}
        for name, shape, kind, offset in entries:
            if name in placed:
                raise ValueError(f"its header has tensor {name!r} twice; it is damaged")
            size = _bytes(name, shape, kind)
            if offset % alignment:
                raise ValueError(f"tensor {name!r} begins at {offset:,}, which is no multiple of {alignment}")
            if start + offset + size > self._size:
                raise ValueError(
                    f"it ends at byte {self._size:,}, and tensor {name!r} at {start + offset + size:,}: the file is "
                    "truncated; download it again"
                )
            placed[name] = TensorEntry(name, shape, kind, start + offset, size)
        return placed

    def _take(self, size: int) -> int:
        """Where the next `size` bytes begin."""
        begin, end = self._at, self._at + size
        if end > self._size:
            raise ValueError(
                f"its header goes on behind its end at byte {self._size:,}: the file is truncated or damaged; "
                "download it again"
            )
        if end > _MOST_HEADER_BYTES:
            raise ValueError(f"its header has more than {_MOST_HEADER_BYTES:,} bytes; it is damaged")
        self._at = end
        return begin

    def _number(self, letter: str) -> Any:
        return struct.unpack_from(f"<{letter}", self._content, self._take(struct.calcsize(f"<{letter}")))[0]

    def _text(self) -> str:
        size = self._number("Q")
        begin = self._take(size)
        try:
            return self._content[begin : begin + size].decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"its header has a text at byte {begin:,} that is not UTF-8; it is damaged") from error

    def _value(self, key: str) -> Any:
        kind = self._number("I")
        if kind in _SCALARS:
            return self._number(_SCALARS[kind])
        if kind == _STRING:
            return self._text()
        if kind != _ARRAY:
            raise ValueError(f"setting {key!r} is of type {kind}, which does not exist; the file is damaged")
        kind, count = self._number("I"), self._number("Q")
        if count > _MOST_ELEMENTS:
            raise ValueError(f"setting {key!r} has {count:,} elements; it is damaged")
        if kind == _STRING:
            return Array(count, tuple(self._text() for _ in range(count)))
        if kind not in _SCALARS:
            raise ValueError(f"setting {key!r} is an array of type {kind}, which is not read")
        self._take(count * struct.calcsize(f"<{_SCALARS[kind]}"))
        return Array(count)

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name, dimensions = self._text(), self._number("I")
        if not 1 <= dimensions <= _MOST_DIMENSIONS:
            raise ValueError(f"tensor {name!r} has {dimensions:,} dimensions; the file is damaged")
        shape = tuple(self._number("Q") for _ in range(dimensions))
        if not all(shape):
            raise ValueError(f"tensor {name!r} has no numbers; the file is damaged")
        return name, shape[::-1], self._number("I"), self._number("Q")


def _bytes(name: str, shape: tuple[int, ...], kind: int) -> int:
    """Bytes of a tensor in the file.

    Raises:
        ValueError: its type cannot be read, or its rows are no whole blocks.
    """
    # Imported here, for what takes no GGUF.
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

    try:
        known = GGMLQuantizationType(kind)
        block, size = GGML_QUANT_SIZES[known]
    except (ValueError, KeyError) as error:
        raise ValueError(f"tensor {name!r} is of quantization type {kind}, which is not known; {_OTHER}") from error
    if not _is_readable(known):
        raise ValueError(f"tensor {name!r} is of quantization type {known.name}, which cannot be read; {_OTHER}")
    if shape[-1] % block:
        raise ValueError(f"tensor {name!r} has rows of {shape[-1]:,} numbers, no multiple of {known.name}'s {block}")
    return math.prod(shape) // block * size


_OTHER = "take a file with another one, such as Q8_0, Q4_K or F16, or the original model"


def _is_readable(kind: Any) -> bool:
    """Whether gguf can make numbers of a type: asked with one block of zeros."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    if kind in (GGMLQuantizationType.F32, GGMLQuantizationType.F16):
        return True
    try:
        dequantize(np.zeros(GGML_QUANT_SIZES[kind][1], np.uint8), kind)
    except NotImplementedError:
        return False
    return True
