"""The format of a checkpoint, the same in memory, on disk and in a store. Nothing in it can run.

A checkpoint is a folder:

- `weights-{rank}-{part}.safetensors` and `optimizer-{rank}-{part}.safetensors`: the pieces of tensors that one rank
  holds, in stock SafeTensors files;
- `index.json`: for each tensor its number format, its whole shape, and which file has which piece where (`Index`);
- `state.json`: what is not a tensor: progress, history, random generator, number format;
- `manifest.json`, written last: step, run, and each file's size and checksum (`Manifest`).

A folder without a manifest is a half-written checkpoint and is not looked at. Everything below is checked when it is
read: whoever can write to a store can write any of these files.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from itertools import combinations, pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from stages.store.errors import StoreError
from stages.store.fields import Printable, Sha256, describe
from stages.store.names import check_distinct, check_file_name

FORMAT = 2
"""Version of the format; 1 was PyTorch's, whose index was a pickle."""
MANIFEST, INDEX, STATE = "manifest.json", "index.json", "state.json"
MAX_RECORD_BYTES = 1 << 30
"""A longer manifest or index is refused unread: that of 70B parameters on 1,024 ranks has 0.3 GB."""

WEIGHT_PREFIX, WEIGHT_FILES = "weight.", "weights"
"""Names of weights begin so, those of the optimizers' averages otherwise; and those of the files that hold them."""

ITEM_BYTES = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I64": 8}
"""Number formats by SafeTensors' names, with the bytes of a number."""

_Size = Annotated[int, Field(ge=0, lt=1 << 60, strict=True)]
_Shape = Annotated[tuple[_Size, ...], Field(max_length=8)]
_FileName = Annotated[str, AfterValidator(check_file_name)]
"""A checkpoint has no folders: one of them could be a link that leads out of it."""
_Hex32 = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class CheckpointFile(_Record):
    """One file of a checkpoint: with its sha256 on disk and in a store, with its XXH3 in memory."""

    path: _FileName
    bytes: _Size
    sha256: Sha256 | None = None
    xxh3: _Hex32 | None = None
    """XXH3-128, which is computed as fast as memory is read: against torn and flipped bytes, not against forgers, who
    cannot write to the memory of this user."""

    @model_validator(mode="after")
    def _has_a_checksum(self) -> CheckpointFile:
        if self.sha256 is None and self.xxh3 is None:
            raise ValueError("has neither sha256 nor xxh3")
        return self


class Probe(_Record):
    """What the next batch gave with exactly the weights of the checkpoint: a restart makes that batch again and
    compares."""

    batch: _Size
    loss: float = Field(allow_inf_nan=False)
    """Nats a target."""
    grad_norm: float = Field(allow_inf_nan=False)


def _check_files(files: list[CheckpointFile]) -> list[CheckpointFile]:
    check_distinct(entry.path for entry in files)
    return files


class Manifest(_Record):
    """The record that makes a folder a checkpoint."""

    format: Literal[2] = FORMAT  # type: ignore[assignment]
    step: _Size
    """The next batch."""
    attempt: _Hex32
    """The start of the processes that wrote it: files of two attempts are never taken together."""
    world: Annotated[int, Field(ge=1, le=1 << 20, strict=True)]
    """Ranks that wrote it."""
    certified: bool = False
    """No silent corruption was found in the interval that ends with this checkpoint."""
    probe: Probe | None = None
    bits_per_byte: float | None = Field(None, allow_inf_nan=False)
    """By the newest validation before it."""
    files: Annotated[list[CheckpointFile], AfterValidator(_check_files)]

    def file(self, path: str) -> CheckpointFile | None:
        """The entry of a file, None if there is none."""
        return next((entry for entry in self.files if entry.path == path), None)


class Piece(_Record):
    """A rectangular part of a tensor in a file."""

    file: _FileName
    offset: _Size
    """Its first byte in the file; its numbers lie there in row-major order."""
    start: _Shape
    """Where it begins in the whole tensor, by dimension."""
    shape: _Shape


class TensorEntry(_Record):
    """One tensor and where its pieces are. They neither overlap nor leave a number out."""

    dtype: Literal["F64", "F32", "BF16", "F16", "I64"]
    shape: _Shape
    pieces: list[Piece]

    @model_validator(mode="after")
    def _pieces_cover_the_tensor(self) -> TensorEntry:
        for piece in self.pieces:
            if len(piece.start) != len(self.shape) or len(piece.shape) != len(self.shape):
                raise ValueError(f"a piece in {piece.file} has another number of dimensions than the tensor")
            if any(s + n > whole for s, n, whole in zip(piece.start, piece.shape, self.shape, strict=True)):
                raise ValueError(f"a piece in {piece.file} lies outside of the tensor")
        if sum(math.prod(piece.shape) for piece in self.pieces) != math.prod(self.shape):
            raise ValueError("its pieces do not have as many numbers as the tensor")
        if _overlap(self.pieces):
            raise ValueError("two of its pieces overlap")
        return self


def _overlap(pieces: list[Piece]) -> bool:
    """Whether two pieces share a number. Those cut along one dimension, as FSDP cuts, are looked at in order."""
    pieces = [piece for piece in pieces if 0 not in piece.shape]
    if len(pieces) < 2:
        return False
    first = pieces[0]
    differing = [d for d in range(len(first.start)) if any(p.start[d] != first.start[d] for p in pieces)]
    if len(differing) == 1:
        cut = differing[0]
        ordered = sorted(pieces, key=lambda piece: piece.start[cut])
        return any(a.start[cut] + a.shape[cut] > b.start[cut] for a, b in pairwise(ordered))
    if len(pieces) > 64:  # pairs of them are compared
        raise ValueError("has more than 64 pieces that are not cut along one dimension")
    return any(intersect(a, b) is not None for a, b in combinations(pieces, 2))


def intersect(a: Piece, b: Piece) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """The part that two pieces of a tensor share, as (start, shape) in the whole tensor; None if they share nothing."""
    start = tuple(max(x, y) for x, y in zip(a.start, b.start, strict=True))
    end = (min(x + n, y + m) for x, n, y, m in zip(a.start, a.shape, b.start, b.shape, strict=True))
    shape = tuple(e - s for s, e in zip(start, end, strict=True))
    return (start, shape) if all(n > 0 for n in shape) else None


class Index(_Record):
    """All tensors of a checkpoint by name."""

    format: Literal[2] = FORMAT  # type: ignore[assignment]
    tensors: dict[Printable, TensorEntry]

    def files(self) -> set[str]:
        """Names of the files with tensors."""
        return {piece.file for entry in self.tensors.values() for piece in entry.pieces}

    def of_file(self, path: str) -> list[tuple[str, TensorEntry, Piece]]:
        """The pieces in one file, in the order in which they lie there."""
        found = [
            (name, entry, piece)
            for name, entry in self.tensors.items()
            for piece in entry.pieces
            if piece.file == path and 0 not in piece.shape
        ]
        return sorted(found, key=lambda item: item[2].offset)


def is_for_export(path: str) -> bool:
    """Whether a file of a checkpoint is needed for its weights alone."""
    return path == INDEX or path.startswith(f"{WEIGHT_FILES}-")


def piece_bytes(entry: TensorEntry, piece: Piece) -> int:
    """Bytes of a piece in its file."""
    return ITEM_BYTES[entry.dtype] * math.prod(piece.shape)


class OldFormatError(StoreError):
    """A checkpoint of a format that is not read any more."""


def parse_manifest(content: bytes, where: str) -> Manifest:
    """A checkpoint's manifest.

    Args:
        where: its place, for messages.

    Raises:
        StoreError: it is not valid, of another format, or lists a path outside of the checkpoint.
    """
    record = _parse(content, where)
    if record.get("format") != FORMAT:
        raise OldFormatError(
            f"{where} is of another format ({_name_format(record)}) than this version of Headwater reads "
            f"({FORMAT}); finish the run with the version that began it, or remove the run's folder to train from the "
            "start"
        )
    try:
        return Manifest.model_validate(record)
    except ValueError as error:
        raise StoreError(f"{where} is not a checkpoint's manifest: {describe(error)}") from error


def _name_format(record: Mapping[str, Any]) -> str:
    """For a message: the number, or the start of whatever stands there, without what a terminal would act on."""
    return repr(record["format"])[:20] if "format" in record else "PyTorch"


def parse_index(content: bytes, manifest: Manifest, where: str, prefix: str = "") -> Index:
    """A checkpoint's index, whose pieces lie in files of the manifest.

    Args:
        prefix: only tensors whose name begins with it are looked at.

    Raises:
        StoreError: it is not valid, or a piece lies outside of its file.
    """
    try:
        index = Index.model_validate(_parse(content, where))
        if prefix:
            index = Index(tensors={name: entry for name, entry in index.tensors.items() if name.startswith(prefix)})
        sizes = {entry.path: entry.bytes for entry in manifest.files}
        for name, entry in index.tensors.items():
            for piece in entry.pieces:
                if piece.offset + piece_bytes(entry, piece) > sizes.get(piece.file, -1):
                    raise ValueError(f"tensors.{name[:100]}: a piece lies outside of {piece.file}")
    except ValueError as error:
        raise StoreError(f"{where} is not a checkpoint's index: {describe(error)}") from error
    return index


def _parse(content: bytes, where: str) -> dict[str, Any]:
    if len(content) > MAX_RECORD_BYTES:
        raise StoreError(f"{where} has {len(content)} bytes, more than {MAX_RECORD_BYTES}")
    try:
        # Strictly UTF-8: `loads` would take bytes of UTF-16 too, which the other ranks could not be told.
        record = json.loads(content.decode())
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(record, dict):
        raise StoreError(f"{where} is not a JSON object")
    return record


def join(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> Index:
    """The index of what all ranks write, from the tensors of each with its own pieces, as JSON values.

    Raises:
        ValueError: the pieces do not make up the tensors.
    """
    tensors: dict[str, dict[str, Any]] = {}
    for part in parts:
        for name, entry in part.items():
            known = tensors.setdefault(name, {**entry, "pieces": []})
            known["pieces"] += entry["pieces"]
    return Index.model_validate({"format": FORMAT, "tensors": tensors})
