"""Checkpoints: sharded by `torch.distributed.checkpoint`, written beside the training, committed by a manifest.

`torch.distributed.checkpoint` is imported when the first one is saved or loaded: it brings DTensor and SymPy, and takes
half as long to import as PyTorch.

A checkpoint is the folder `step-{n:08}`. Its `manifest.json` is written last, when every rank's files are on disk, and
holds the sha256 of each; a folder without one is a half-written checkpoint and is not looked at. What is loaded is
verified first.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import re
import secrets
import shutil
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.store.errors import StoreError
from stages.store.hashing import cache_folder, sha256_file
from stages.store.manifest import FileEntry, parse_files
from stages.store.names import refuse_links
from stages.store.private_files import make_private_folder
from stages.store.store import Store, describe_disk_error
from stages.training.parallelism.ranks import Ranks

MANIFEST = "manifest.json"
STATE = "state.json"
_STEP = re.compile(r"step-[0-9]{8,18}")


def committed_checkpoints(store: Store, folder: str) -> list[str]:
    """Names of the committed checkpoints below a run's `checkpoints` folder, oldest first: `{folder}/step-{n:08}`."""
    start, end = f"{folder}/", f"/{MANIFEST}"
    names = [name.removesuffix(end) for name in store.list(folder) if name.endswith(end)]
    return sorted(name for name in names if _STEP.fullmatch(name.removeprefix(start)))


def damaged(checkpoint: Path, part: int = 0, parts: int = 1) -> list[str]:
    """Files of a committed checkpoint whose bytes are not what its manifest says: every `parts`-th of them.

    A manifest that is not valid is the one damaged file.
    """
    try:
        files = _listed_files((checkpoint / MANIFEST).read_bytes(), str(checkpoint / MANIFEST))
    except StoreError:
        return [MANIFEST] if part == 0 else []
    wrong = []
    for entry in files[part::parts]:
        path = checkpoint / entry.path
        if not path.is_file() or path.stat().st_size != entry.bytes or sha256_file(path) != entry.sha256:
            wrong.append(entry.path)
    return wrong


def _listed_files(manifest: bytes, where: str) -> list[FileEntry]:
    """The files that a checkpoint's manifest lists.

    Raises:
        StoreError: the manifest is not valid, or lists a path outside of the checkpoint.
    """
    try:
        record = json.loads(manifest)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{where} is not valid JSON: {error}") from error
    return parse_files(record, where)


@dataclass
class _Saving:
    """A checkpoint that is being written."""

    name: str
    """Its folder in the store."""
    path: Path
    """Where this machine writes it: that folder itself, or a scratch folder from which it is put there."""
    step: int
    started: float
    stall: float = 0.0
    """Seconds that the training waited for it."""
    files: list[dict[str, Any]] | None = None
    error: BaseException | None = None
    error_message: str = ""
    thread: threading.Thread | None = None

    @property
    def done(self) -> bool:
        return self.thread is not None and not self.thread.is_alive()


class Checkpointer:
    """Writes and finds the checkpoints of one run. Every rank makes the same calls in the same order.

    Args:
        store: where checkpoints lie. On an object store every rank puts its own files there.
        folder: the run's `checkpoints` folder in it.
        keep: committed checkpoints that stay.
        on_commit: called on rank 0 with (step, seconds from start to commit, seconds that the training waited).
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        ranks: Ranks,
        on_commit: Callable[[int, float, float], None],
        keep: int = 2,
    ):
        self.store, self.folder, self.ranks, self.keep, self._on_commit = store, folder, ranks, keep, on_commit
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
        name = f"{self.folder}/step-{step:08}"
        began = time.monotonic()
        token = secrets.token_hex(4)
        if self.ranks.rank == 0:
            self._remove(name)
        # Nobody writes before the folder is clean.
        path = self._local(name, self.ranks.broadcast_object(token))
        make_private_folder(path)
        if self.ranks.rank == 0:
            (path / STATE).write_text(json.dumps(state))
        saving = _Saving(name, path, step, began)
        import torch.distributed.checkpoint as dcp

        alone = {"no_dist": True} if self.ranks.alone else {"process_group": self.ranks.saving}
        future = dcp.async_save(tensors, storage_writer=dcp.FileSystemWriter(path), **alone)
        saving.thread = threading.Thread(target=self._finish, args=(saving, future), name="checkpoint", daemon=True)
        saving.thread.start()
        saving.stall = time.monotonic() - began
        self._saving = saving
        if wait:
            self.commit()

    def _finish(self, saving: _Saving, future: Any) -> None:
        """In a thread: waits for this rank's files, hashes them, and puts them into an object store if that is where
        checkpoints lie."""
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            future.result()
            mine = list(saving.path.glob(f"__{self.ranks.rank}_*"))
            if self.ranks.rank == 0:
                mine += [saving.path / ".metadata", saving.path / STATE]
            saving.files = [{"path": p.name, "bytes": p.stat().st_size, "sha256": sha256_file(p)} for p in sorted(mine)]
            if not self.store.is_local:
                for path in mine:
                    self.store.put_file(path, f"{saving.name}/{path.name}")
        except BaseException as error:
            saving.error = error
            # dcp's own error holds every rank's as a traceback's text.
            cause = next(iter(error.failures.values()))[0] if isinstance(error, CheckpointException) else error
            saving.error_message = describe_disk_error(cause, saving.path) or f"{type(cause).__name__}: {cause}"

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
        parts = self.ranks.all_gather_object((saving.files, saving.error_message))
        if not self.store.is_local:
            shutil.rmtree(saving.path.parent, ignore_errors=True)
        for rank, (_, message) in enumerate(parts):
            if message:
                location = self.store.where(saving.name)
                raise StoreError(f"checkpoint {location}: rank {rank} could not write it: {message}") from saving.error
        if self.ranks.rank == 0:
            files = [entry for part, _ in parts for entry in part]
            record = {"step": saving.step, "world": self.ranks.world, "files": files}
            self.store.put(f"{saving.name}/{MANIFEST}", json.dumps(record, indent=1).encode())
            for old in committed_checkpoints(self.store, self.folder)[: -self.keep]:
                self._remove(old)
            now = time.monotonic()
            self._on_commit(saving.step, now - saving.started, saving.stall + now - began)

    def abandon(self) -> None:
        """After an exception: one process alone commits what is under way, so that no thread keeps writing after it.

        Several ranks cannot: the others may be gone. Their half-written checkpoint is not looked at again.
        """
        if self.ranks.alone:
            self.commit()

    def newest(self) -> tuple[Path | None, list[str]]:
        """The newest whole checkpoint, verified, and the damaged files (`folder/file`) of newer ones passed over.

        Raises:
            StoreError: there are checkpoints and every one is damaged.
        """
        self._forget_half_written()
        names = self.ranks.broadcast_object(committed_checkpoints(self.store, self.folder))
        refused: list[str] = []
        for name in reversed(names):
            path = self._fetch(name)
            parts = self.ranks.all_gather_object(damaged(path, self.ranks.rank, self.ranks.world))
            wrong = [f"{path.name}/{file}" for part in parts for file in part]
            if not wrong:
                return path, refused
            refused += wrong
        if refused:
            raise StoreError(
                f"no checkpoint below {self.store.where(self.folder)} is whole: {', '.join(refused)} changed since "
                "they were written; remove the folder to train from the start"
            )
        return None, []

    def load(self, path: Path, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Fills the tensors in place, whatever number of ranks wrote them; returns the state.

        Args:
            path: what `newest` gave, which has verified it.

        Raises:
            StoreError: tensors of another model.
        """
        import torch.distributed.checkpoint as dcp
        from torch.distributed.checkpoint.api import CheckpointException

        try:
            dcp.load(tensors, storage_reader=dcp.FileSystemReader(path), no_dist=self.ranks.alone)
        except (RuntimeError, ValueError, CheckpointException) as error:
            raise StoreError(f"checkpoint {path} does not fit the model: {error}") from error
        return json.loads((path / STATE).read_bytes())

    def _remove(self, name: str) -> None:
        """Its manifest first, so that a half-removed one is not a checkpoint."""
        self.store.remove(f"{name}/{MANIFEST}")
        self.store.remove(name)

    def _local(self, name: str, token: str = "") -> Path:
        """Where this machine has a checkpoint's files, or writes them."""
        if self.store.is_local:
            return self.store.local_path(name)
        run = hashlib.sha256(self.store.where(self.folder).encode()).hexdigest()[:16]
        return cache_folder() / "checkpoints" / f"{run}{token}" / Path(name).name

    def _fetch(self, name: str) -> Path:
        """A checkpoint's files on this machine; what is missing in the store is missing here, and found out later."""
        path = self._local(name)
        if self.store.is_local:
            return path
        make_private_folder(path)
        with (path.parent / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the ranks of one machine fetch it once
            manifest = self.store.read(f"{name}/{MANIFEST}")
            for entry in _listed_files(manifest, self.store.where(f"{name}/{MANIFEST}")):
                local = refuse_links(path, path / entry.path)
                local.parent.mkdir(parents=True, exist_ok=True)
                if not local.is_file() or local.stat().st_size != entry.bytes:
                    with contextlib.suppress(FileNotFoundError):
                        self.store.get_file(f"{name}/{entry.path}", local)
            (path / MANIFEST).write_bytes(manifest)
        return path

    def _forget_half_written(self) -> None:
        """Removes what an attempt that was killed had written on this machine and not yet put into the store."""
        if not self.store.is_local:
            run = self._local("x").parent
            for left in run.parent.glob(f"{run.name}?*"):
                shutil.rmtree(left, ignore_errors=True)

    def forget_fetched(self) -> None:
        """Removes what was fetched to this machine; a restart may find newer checkpoints under the same names.

        Every rank must call it: a machine's ranks read the same files, and the last one has to be done with them.
        """
        if not self.store.is_local:
            self.ranks.all_gather_object(None)
            shutil.rmtree(self._local("x").parent, ignore_errors=True)


def rng_state() -> str:
    """The random generator's state, as hex digits."""
    return bytes(torch.get_rng_state().numpy()).hex()


def set_rng_state(state: str) -> None:
    torch.set_rng_state(torch.frombuffer(bytearray.fromhex(state), dtype=torch.uint8))
