"""Which pieces of which tensors a rank writes, and where they lie in its files: settled once, before the first step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.weight_files import safetensors_header
from stages.training.checkpoint.format import ITEM_BYTES, WEIGHT_FILES, WEIGHT_PREFIX, Piece
from stages.training.parallelism.sharded import local

FILE_BYTES = 512 << 20
"""Tensors are collected in a file up to this size, so that a large rank's files are written side by side."""
_ALIGNMENT = 4096
"""The numbers begin at a page: headers are padded with spaces, as SafeTensors allows."""

DTYPES = {"F64": torch.float64, "F32": torch.float32, "BF16": torch.bfloat16, "F16": torch.float16, "I64": torch.int64}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class LocalPiece:
    """A piece that this rank holds."""

    name: str
    """Of the tensor."""
    tensor: Tensor
    """This rank's part, in use: contiguous."""
    whole: tuple[int, ...]
    """Shape of the whole tensor."""
    start: tuple[int, ...]
    """Where the part begins in it."""

    @property
    def dtype(self) -> str:
        return NAMES[self.tensor.dtype]

    @property
    def bytes(self) -> int:
        return self.tensor.numel() * self.tensor.element_size()


@dataclass(frozen=True)
class FilePlan:
    """A file that this rank writes."""

    path: str
    header: bytes
    """The file's beginning, up to the first number."""
    pieces: tuple[tuple[LocalPiece, int], ...]
    """With the first byte of each in the file."""

    @property
    def bytes(self) -> int:
        return len(self.header) + sum(piece.bytes for piece, _ in self.pieces)


def local_pieces(tensors: Mapping[str, Tensor], *, owned: bool) -> list[LocalPiece]:
    """This rank's part of each tensor; none where it has no rows of it.

    Args:
        tensors: plain, or sharded by rows (`Shard(0)`) and perhaps replicated.
        owned: leave out what another copy of the model writes. The copies share the tensors out evenly, so that
            nothing is written twice.
    """
    pieces, written = [], [0]
    for name, tensor in tensors.items():
        part = local(tensor.detach())
        if not part.is_contiguous():
            raise ValueError(f"{name} is not contiguous")
        start, replica, replicas = _placement(tensor)
        if len(written) != replicas:
            written = [0] * replicas
        owner = min(range(replicas), key=written.__getitem__)
        written[owner] += tensor.numel()
        if part.numel() and (replica == owner or not owned):
            pieces.append(LocalPiece(name, part, tuple(tensor.shape), start))
    return pieces


def _placement(tensor: Tensor) -> tuple[tuple[int, ...], int, int]:
    """Where this rank's part of a tensor begins, the number of its copy, and how many copies there are."""
    mesh, placements = getattr(tensor, "device_mesh", None), getattr(tensor, "placements", ())
    start = [0] * tensor.ndim
    if mesh is None:  # a plain tensor: alone, or the same on every rank
        ranks = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
        return tuple(start), torch.distributed.get_rank() if ranks > 1 else 0, ranks
    coordinate = mesh.get_coordinate()
    replica, replicas = 0, 1
    for dimension, placement in enumerate(placements):
        if placement.is_shard():
            # As `torch.chunk` cuts, and FSDP with it: the last ranks may have fewer rows, or none.
            rows = -(-tensor.shape[placement.dim] // mesh.size(dimension))
            start[placement.dim] = min(tensor.shape[placement.dim], coordinate[dimension] * rows)
        else:
            replica, replicas = replica * mesh.size(dimension) + coordinate[dimension], replicas * mesh.size(dimension)
    return tuple(start), replica, replicas


def plan_files(pieces: list[LocalPiece], rank: int) -> list[FilePlan]:
    """This rank's files. Weights and the optimizers' averages are in files of their own: a model is exported from the
    first alone."""
    plans = []
    for kind, chosen in _by_kind(pieces).items():
        for number, group in enumerate(_grouped(chosen)):
            path = f"{kind}-{rank:05}-{number:05}.safetensors"
            described = ((piece.name, piece.dtype, piece.tensor.shape, piece.bytes) for piece in group)
            header = safetensors_header(described, _ALIGNMENT)
            offset, placed = len(header), []
            for piece in group:
                placed.append((piece, offset))
                offset += piece.bytes
            plans.append(FilePlan(path, header, tuple(placed)))
    return plans


def _by_kind(pieces: list[LocalPiece]) -> dict[str, list[LocalPiece]]:
    kinds: dict[str, list[LocalPiece]] = {}
    for piece in pieces:
        kinds.setdefault(WEIGHT_FILES if piece.name.startswith(WEIGHT_PREFIX) else "optimizer", []).append(piece)
    return kinds


def _grouped(pieces: list[LocalPiece]) -> Iterator[list[LocalPiece]]:
    """Up to `FILE_BYTES` together, or one alone. Large numbers first, so that each lies at a multiple of its size."""
    group: list[LocalPiece] = []
    for piece in sorted(pieces, key=lambda piece: -ITEM_BYTES[piece.dtype]):
        if group and sum(other.bytes for other in group) + piece.bytes > FILE_BYTES:
            yield group
            group = []
        group.append(piece)
    if group:
        yield group


def describe_files(plans: list[FilePlan]) -> dict[str, dict[str, Any]]:
    """The tensors in these files with their pieces, as JSON values: this rank's part of the index."""
    tensors: dict[str, dict[str, Any]] = {}
    for plan in plans:
        for piece, offset in plan.pieces:
            placed = Piece(file=plan.path, offset=offset, start=piece.start, shape=tuple(piece.tensor.shape))
            entry = tensors.setdefault(piece.name, {"dtype": piece.dtype, "shape": [*piece.whole], "pieces": []})
            entry["pieces"].append(placed.model_dump(mode="json"))
    return tensors


def as_bytes(tensor: Tensor) -> Tensor:
    """A contiguous tensor's own bytes: uint8 [bytes]."""
    return tensor.view(-1).view(torch.uint8)


def describe_tensors(tensors: Mapping[str, Tensor]) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Number format and whole shape of each tensor."""
    return {name: (NAMES[tensor.dtype], tuple(tensor.shape)) for name, tensor in tensors.items()}
