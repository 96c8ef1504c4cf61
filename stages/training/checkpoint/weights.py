"""The weights in a checkpoint, one tensor at a time: what an export reads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stages.store.artifact import Artifact
from stages.store.errors import InputError, StoreError
from stages.store.hashing import sha256_file
from stages.store.manifest import FileEntry
from stages.store.store import Store
from stages.training.checkpoint.finding import committed_checkpoints
from stages.training.checkpoint.format import (
    INDEX,
    MANIFEST,
    WEIGHT_PREFIX,
    CheckpointFile,
    Index,
    Manifest,
    is_for_export,
    parse_index,
    parse_manifest,
)
from stages.training.checkpoint.layout import DTYPES


class CheckpointWeights:
    """The weights of one checkpoint.

    Args:
        index: of a checkpoint, of its weights alone (`parse_index` with their prefix).
        local: gives a file by name, on this machine.
    """

    def __init__(self, index: Index, local: Callable[[str], Path]):
        self._tensors = {name.removeprefix(WEIGHT_PREFIX): entry for name, entry in index.tensors.items()}
        self._local = local

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Whole shapes by name."""
        return {name: entry.shape for name, entry in self._tensors.items()}

    def read(self, name: str) -> Tensor:
        """A whole tensor, put together from its pieces. Whole rows, as FSDP cuts, are read into their place: nothing is
        held twice."""
        entry = self._tensors[name]
        whole = torch.empty(entry.shape, dtype=DTYPES[entry.dtype])
        for piece in entry.pieces:
            place = whole[tuple(slice(s, s + n) for s, n in zip(piece.start, piece.shape, strict=True))]
            if not place.numel():
                continue
            part = place if place.is_contiguous() else torch.empty(piece.shape, dtype=whole.dtype)
            _read_into(self._local(piece.file), piece.offset, part)
            if part is not place:
                place.copy_(part)
        return whole


def _read_into(path: Path, offset: int, part: Tensor) -> None:
    view = memoryview(part.view(-1).view(torch.uint8).numpy()).cast("B")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"{path} cannot be read any more: {error.strerror}; take another step") from error
    try:
        while view:
            count = os.preadv(handle, [view], offset)
            if not count:
                raise StoreError(f"{path} is shorter than its index says; headwater verify names damaged files")
            view, offset = view[count:], offset + count
    finally:
        os.close(handle)


def final_weights(training: Artifact) -> CheckpointWeights:
    """The weights of a finished run.

    Raises:
        InputError: the run was made by an earlier version, which kept them in one file.
        StoreError: its index is damaged.
    """
    indices = [entry for entry in training.files("checkpoints/") if entry.path.endswith(f"/{INDEX}")]
    if len(indices) != 1:
        raise InputError(
            f"model: {training.id} has no weights in this version's format; train it again, or export it with the "
            "version that trained it"
        )
    folder = indices[0].path.rsplit("/", 1)[0]
    manifest = _as_manifest(training.files(f"{folder}/"), folder)
    index = parse_index(
        training.read(indices[0].path), manifest, f"{training.id}/{folder}/{INDEX}", prefix=WEIGHT_PREFIX
    )
    return CheckpointWeights(index, lambda name: training.local(f"{folder}/{name}"))


def _as_manifest(files: Sequence[FileEntry], folder: str) -> Manifest:
    entries = [
        CheckpointFile(path=entry.path.removeprefix(f"{folder}/"), bytes=entry.bytes, sha256=entry.sha256)
        for entry in files
    ]
    return Manifest(step=0, attempt="0" * 32, world=1, files=entries)


def checkpoint_weights(store: Store, run: str, step: int | None, scratch: Path) -> tuple[CheckpointWeights, int]:
    """The weights of a checkpoint that a run, finished or not, has in the store; verified. And its step.

    Args:
        run: the run's folder.
        step: of the checkpoint; None: the newest one.
        scratch: a folder for what is fetched from an object store.

    Raises:
        InputError: the run has no such checkpoint.
        StoreError: it is damaged, or was removed while it was read.
    """
    base = f"{run}/checkpoints"
    known = {int(name.rsplit("-", 1)[1]): name for name in committed_checkpoints(store, base)}
    if not known:
        raise InputError(
            f"model: {store.where(run)} has no whole checkpoint yet; start the run again until it has written one"
        )
    if step is not None and step not in known:
        raise InputError(
            f"model: {store.where(run)} has no checkpoint of step {step}; it has {', '.join(map(str, sorted(known)))} "
            "(training.checkpoint.keep_every_steps keeps more)"
        )
    step = max(known) if step is None else step
    name = known[step]
    try:
        manifest = parse_manifest(store.read(f"{name}/{MANIFEST}"), store.where(f"{name}/{MANIFEST}"))
        fetched = {
            entry.path: _fetch(store, name, entry, scratch) for entry in manifest.files if is_for_export(entry.path)
        }
    except FileNotFoundError as error:
        raise StoreError(
            f"{store.where(name)} is not whole: {error}; take another step, or if the run goes on, which removes old "
            "checkpoints, the newest one"
        ) from error
    if INDEX not in fetched:
        raise StoreError(f"{store.where(name)}/{MANIFEST} lists no {INDEX}; take another step")
    index = parse_index(fetched[INDEX].read_bytes(), manifest, store.where(f"{name}/{INDEX}"), prefix=WEIGHT_PREFIX)
    elsewhere = index.files() - fetched.keys()
    if elsewhere:
        raise StoreError(f"{store.where(name)}/{INDEX} has weights in {min(elsewhere)}, which is no file of weights")
    return CheckpointWeights(index, fetched.__getitem__), step


def _fetch(store: Store, folder: str, entry: CheckpointFile, scratch: Path) -> Path:
    where = f"{folder}/{entry.path}"
    if store.is_local:
        path = store.local_path(where)
    else:
        path = scratch / entry.path
        store.get_file(where, path)
    if path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
        raise StoreError(
            f"{store.where(where)} is damaged: it is not what the checkpoint's manifest says; take another step"
        )
    return path
