"""Checkpoints: sharded by `torch.distributed.checkpoint`, written beside the training, committed by a manifest.

A checkpoint is the folder `step-{n:08}`. Its `manifest.json` is written last, when every rank's files are on disk, and
holds the sha256 of each; a folder without one is a half-written checkpoint and is not looked at. What is loaded is
verified first.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor

from stages.artifact.errors import StoreError
from stages.training.parallel import Ranks

MANIFEST = "manifest.json"
STATE = "state.json"


def whole_checkpoints(folder: Path) -> list[Path]:
    """Committed checkpoints below a run's `checkpoints` folder, oldest first."""
    return sorted(path.parent for path in folder.glob(f"step-*/{MANIFEST}"))


def damaged(checkpoint: Path, part: int = 0, parts: int = 1) -> list[str]:
    """Files of a committed checkpoint whose bytes are not what its manifest says: every `parts`-th of them."""
    files = json.loads((checkpoint / MANIFEST).read_bytes())["files"]
    wrong = []
    for entry in files[part::parts]:
        path = checkpoint / entry["path"]
        if not path.is_file() or path.stat().st_size != entry["bytes"] or _sha256(path) != entry["sha256"]:
            wrong.append(entry["path"])
    return wrong


@dataclass
class _Saving:
    """A checkpoint under way."""

    path: Path
    step: int
    started: float
    stall: float = 0.0
    """Seconds that the training waited for it."""
    files: list[dict[str, Any]] | None = None
    error: BaseException | None = None
    thread: threading.Thread | None = None

    @property
    def done(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()


class Checkpointer:
    """Writes and finds the checkpoints of one run. Every rank makes the same calls in the same order.

    Args:
        folder: where checkpoints lie, the same for all ranks.
        keep: committed checkpoints that stay.
        on_commit: called on rank 0 with (step, seconds from start to commit, seconds that the training waited).
    """

    def __init__(self, folder: Path, ranks: Ranks, on_commit: Callable[[int, float, float], None], keep: int = 2):
        self.folder, self.ranks, self.keep, self._on_commit = folder, ranks, keep, on_commit
        self._saving: _Saving | None = None
        if ranks.alone:  # known and meant
            warnings.filterwarnings("ignore", message="torch.distributed is disabled", category=UserWarning)

    @property
    def finished_writing(self) -> bool:
        """This rank's part of the checkpoint under way is on disk. All ranks' must be, before `commit`."""
        return self._saving is not None and self._saving.done

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any], *, wait: bool = False) -> None:
        """Starts to write a checkpoint; returns when the tensors are copied, or when it is committed if `wait`.

        Args:
            step: names it.
            tensors: this rank's tensors by name, plain or sharded.
            state: plain JSON values, rank 0's are kept.
        """
        self.commit()
        path = self.folder / f"step-{step:08}"
        began = time.monotonic()
        if self.ranks.rank == 0:
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir(parents=True)
            (path / STATE).write_text(json.dumps(state))
        self.ranks.from_first(None)  # nobody writes before the folder is clean
        saving = _Saving(path, step, began)
        alone = {"no_dist": True} if self.ranks.alone else {"process_group": self.ranks.saving}
        future = dcp.async_save(tensors, storage_writer=dcp.FileSystemWriter(path), **alone)
        saving.thread = threading.Thread(target=self._finish, args=(saving, future), name="checkpoint", daemon=True)
        saving.thread.start()
        saving.stall = time.monotonic() - began
        self._saving = saving
        if wait:
            self.commit()

    def _finish(self, saving: _Saving, future: Any) -> None:
        """In a thread: waits for this rank's files and hashes them."""
        try:
            future.result()
            mine = list(saving.path.glob(f"__{self.ranks.rank}_*"))
            if self.ranks.rank == 0:
                mine += [saving.path / ".metadata", saving.path / STATE]
            saving.files = [{"path": p.name, "bytes": p.stat().st_size, "sha256": _sha256(p)} for p in sorted(mine)]
        except BaseException as error:
            saving.error = error

    def commit(self) -> None:
        """Commits the checkpoint under way, waiting for it if need be. Every rank must call it together.

        Raises:
            StoreError: it could not be written.
        """
        saving, self._saving = self._saving, None
        if saving is None or saving.thread is None:
            return
        began = time.monotonic()
        saving.thread.join()
        parts = self.ranks.gather((saving.files, str(saving.error) if saving.error else None))
        for rank, (_, error) in enumerate(parts):
            if error:
                raise StoreError(f"checkpoint {saving.path}: rank {rank} could not write it: {error}")
        if self.ranks.rank == 0:
            files = [entry for part, _ in parts for entry in part]
            record = {"step": saving.step, "world": self.ranks.world, "files": files}
            aside = saving.path / f".{MANIFEST}"
            with aside.open("w") as handle:
                json.dump(record, handle, indent=1)
                handle.flush()
                os.fsync(handle.fileno())
            aside.rename(saving.path / MANIFEST)
            for old in whole_checkpoints(self.folder)[: -self.keep]:
                (old / MANIFEST).unlink()  # first, so that a half-removed one is not a checkpoint
                shutil.rmtree(old)
            now = time.monotonic()
            self._on_commit(saving.step, now - saving.started, saving.stall + now - began)

    def abandon(self) -> None:
        """After an exception: one process alone commits what is under way, so that no thread writes on behind it.

        Several ranks cannot: the others may be gone. Their half-written checkpoint is not looked at again.
        """
        if self.ranks.alone:
            self.commit()

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest whole checkpoint, verified, and the damaged files (`folder/file`) of newer ones passed over.

        Raises:
            StoreError: there are checkpoints and every one is damaged.
        """
        names = self.ranks.from_first([str(path) for path in whole_checkpoints(self.folder)])
        refused: list[str] = []
        for path in map(Path, reversed(names)):
            parts = self.ranks.gather(damaged(path, self.ranks.rank, self.ranks.world))
            wrong = [f"{path.name}/{name}" for part in parts for name in part]
            if not wrong:
                return path, refused
            refused += wrong
        if refused:
            raise StoreError(
                f"no checkpoint below {self.folder} is whole: {', '.join(refused)} changed since they were written; "
                "remove the folder to train from the start"
            )
        return None, []

    def load(self, path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Fills the tensors in place, whatever number of ranks wrote them; returns the state.

        Raises:
            StoreError: files that are not what the manifest says, by name, or tensors of another model.
        """
        parts = self.ranks.gather(damaged(path, self.ranks.rank, self.ranks.world))
        wrong = [name for part in parts for name in part]
        if wrong:
            raise StoreError(f"checkpoint {path} is damaged: {', '.join(wrong)} changed since they were written")
        try:
            dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), no_dist=self.ranks.alone)
        except (RuntimeError, ValueError) as error:
            raise StoreError(f"checkpoint {path} does not fit the model: {error}") from error
        return json.loads((path / STATE).read_bytes())


def rng_state() -> str:
    """The random generator's state, as hex digits."""
    return bytes(torch.get_rng_state().numpy()).hex()


def set_rng_state(state: str) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))


def _sha256(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
