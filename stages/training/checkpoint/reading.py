"""Filling tensors from a checkpoint's files, verified in the same pass, whatever number of ranks wrote them."""

from __future__ import annotations

import hashlib
import math
import os
import stat
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
import xxhash
from torch import Tensor

from stages.training.checkpoint.format import (
    MAX_RECORD_BYTES,
    CheckpointFile,
    Index,
    Manifest,
    Piece,
    TensorEntry,
    intersect,
)
from stages.training.checkpoint.layout import DTYPES, LocalPiece, as_bytes

CHUNK = 1 << 20
"""Bytes that are read and hashed together: they stay in the processor's cache between the two."""


def misfits(index: Index, shapes: Mapping[str, tuple[str, tuple[int, ...]]]) -> str:
    """What keeps a checkpoint from filling tensors of these number formats and shapes, by name; empty if nothing."""
    for name in sorted({*index.tensors, *shapes}):
        if name not in index.tensors:
            if 0 in shapes[name][1]:  # without numbers: no rank has a piece of it
                continue
            return f"it has no {name}"
        if name not in shapes:
            return f"its {name} is not a tensor of this model"
        entry = index.tensors[name]
        if (entry.dtype, entry.shape) != shapes[name]:
            return f"its {name} is {entry.dtype} {list(entry.shape)}, not {shapes[name][0]} {list(shapes[name][1])}"
    return ""


def needed_files(index: Index, pieces: Iterable[LocalPiece]) -> list[str]:
    """The files that hold a part of these pieces, sorted."""
    found: set[str] = set()
    for piece in pieces:
        mine = _place(piece)
        found |= {other.file for other in index.tensors[piece.name].pieces if intersect(mine, other)}
    return sorted(found)


class Filler:
    """Fills this rank's parts of the tensors from the files of one folder.

    Args:
        folder: the checkpoint's, on this machine.
        pieces: this rank's parts, which are written to.
        threads: files that are read side by side.
    """

    def __init__(self, folder: Path, manifest: Manifest, index: Index, pieces: Iterable[LocalPiece], threads: int = 2):
        self.folder, self.manifest, self.index, self.threads = folder, manifest, index, threads
        self.pieces = {piece.name: piece for piece in pieces}

    def fill_verified(self, files: Iterable[str], fetch: Callable[[str], None] | None = None) -> list[str]:
        """Reads whole files, and fills the parts that lie in them; returns the files whose bytes are not what the
        manifest says. What they filled must not be used.

        Args:
            fetch: called first for each file, to bring it into the folder; FileNotFoundError: it is gone.
        """

        def one(name: str) -> bool:
            try:
                if fetch is not None:
                    fetch(name)
                return self._read(name, whole=True)
            except OSError:  # missing, a link, or a disk that cannot read it
                return False

        names = list(files)
        with ThreadPoolExecutor(max(1, min(self.threads, len(names)))) as pool:
            good = list(pool.map(one, names))
        return [name for name, whole in zip(names, good, strict=True) if not whole]

    def fill(self, files: Iterable[str]) -> None:
        """Fills the parts that lie in files which another rank of this machine has verified."""
        with ThreadPoolExecutor(self.threads) as pool:
            list(pool.map(lambda name: self._read(name, whole=False), files))

    def _read(self, name: str, *, whole: bool) -> bool:
        entry = self.manifest.file(name)
        if entry is None:
            return False
        handle = os.open(self.folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            found = os.fstat(handle)
            if not stat.S_ISREG(found.st_mode) or found.st_size != entry.bytes:
                return False
            reader = _FileReader(handle, entry, whole)
            for tensor, described, piece in self.index.of_file(name):
                mine = self.pieces.get(tensor)
                if mine is not None:
                    self._fill_piece(reader, described, piece, mine)
            return reader.finish()
        finally:
            os.close(handle)

    def _fill_piece(self, reader: _FileReader, entry: TensorEntry, piece: Piece, mine: LocalPiece) -> None:
        """What a piece in the file and this rank's part have in common."""
        shared = intersect(piece, _place(mine))
        if shared is None:
            return
        start, shape = shared
        item = mine.tensor.element_size()
        if shape[1:] == piece.shape[1:] == tuple(mine.tensor.shape[1:]):  # rows: one range of bytes in both
            row = item * math.prod(shape[1:])
            lead = (start[0] - piece.start[0]) * row if shape else 0
            at = (start[0] - mine.start[0]) * row if shape else 0
            size = row * shape[0] if shape else item
            reader.read_into(as_bytes(mine.tensor)[at : at + size], piece.offset + lead)
            return
        held = torch.empty(piece.shape, dtype=DTYPES[entry.dtype])
        reader.read_into(as_bytes(held), piece.offset)
        theirs = tuple(slice(s - p, s - p + n) for s, p, n in zip(start, piece.start, shape, strict=True))
        ours = tuple(slice(s - p, s - p + n) for s, p, n in zip(start, mine.start, shape, strict=True))
        mine.tensor[ours].copy_(held[theirs])


class _FileReader:
    """Reads ranges of a file in order. With `whole` also all between them, for the checksum."""

    def __init__(self, handle: int, entry: CheckpointFile, whole: bool):
        self.handle, self.entry = handle, entry
        self.hash: Any = None
        if whole:
            self.hash = xxhash.xxh3_128() if entry.xxh3 is not None else hashlib.sha256()
        self._at = 0
        self._scratch = bytearray(CHUNK) if whole else bytearray()

    def read_into(self, target: Tensor, offset: int) -> None:
        """Reads the bytes from `offset` on into a uint8 tensor."""
        host = target if target.device.type == "cpu" else torch.empty_like(target, device="cpu", pin_memory=True)
        if self.hash is not None:
            self._skip_to(offset)
        view = memoryview(host.numpy()).cast("B")
        for start in range(0, len(view), CHUNK):
            self._read(view[start : start + CHUNK], offset + start)
        self._at = offset + len(view)
        if host is not target:
            target.copy_(host)

    def finish(self) -> bool:
        """Whether the file has the checksum that its entry says; True if it was not to be computed."""
        if self.hash is None:
            return True
        self._skip_to(self.entry.bytes)
        return bool(self.hash.hexdigest() == (self.entry.xxh3 or self.entry.sha256))

    def _skip_to(self, offset: int) -> None:
        while self._at < offset:
            size = min(CHUNK, offset - self._at)
            self._read(memoryview(self._scratch)[:size], self._at)
            self._at += size

    def _read(self, view: memoryview, offset: int) -> None:
        done = 0
        while done < len(view):
            count = os.preadv(self.handle, [view[done:]], offset + done)
            if not count:
                raise FileNotFoundError(f"{self.entry.path} became shorter while it was read")
            done += count
        if self.hash is not None:
            self.hash.update(view)


def verified_bytes(path: Path, entry: CheckpointFile) -> bytes | None:
    """The content of a small file, None if it is not what the manifest says."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(handle, "rb") as file:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.bytes or entry.bytes > MAX_RECORD_BYTES:
            return None
        content = file.read(entry.bytes + 1)
    if entry.xxh3 is not None:
        return content if xxhash.xxh3_128(content).hexdigest() == entry.xxh3 else None
    return content if hashlib.sha256(content).hexdigest() == entry.sha256 else None


def _place(piece: LocalPiece) -> Piece:
    return Piece.model_construct(file="", offset=0, start=piece.start, shape=tuple(piece.tensor.shape))
