"""From this machine's disk to an object store, in a thread of its own: one checkpoint at a time, manifest last.

A store that is away stops neither the training nor the next checkpoint: one that waits for its turn is replaced by the
next, and what is whole in the store stays until something newer is.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from stages.store.errors import StoreError
from stages.store.events import Emit
from stages.store.store import Store
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.retention import forget_superseded, remove_superseded
from stages.training.config import CheckpointConfig
from stages.training.parallelism.ranks import Ranks

_THREADS = 4
_PAUSES = (1.0, 5.0, 15.0, 60.0, 120.0)
"""Seconds before each further try; after the last one the checkpoint is given up, and the next one tried."""


@dataclass
class Upload:
    """This rank's part of one checkpoint on its way into the store."""

    step: int
    name: str
    """The checkpoint's folder in the store."""
    folder: Path
    """The same on this machine's disk."""
    files: list[str]
    """This rank's files."""
    manifest: bytes
    """The whole checkpoint's."""
    bits_per_byte: float | None = None
    error: str = ""
    not_removed: str = ""
    """Why what it superseded is still in the store."""
    hurry: threading.Event = field(default_factory=threading.Event)
    """Set when somebody waits for it: a failure is then reported after the tries of the store's own client."""
    done: threading.Event = field(default_factory=threading.Event)


class Uploader:
    """Puts one rank's files into the store."""

    def __init__(self, store: Store):
        self.store = store

    def start(self, upload: Upload) -> None:
        """Begins to upload this rank's files, in a thread."""
        self._begin(upload, lambda: self._put(upload))

    def finalize(self, upload: Upload, then: Callable[[], None]) -> None:
        """Makes what all ranks have uploaded a checkpoint, in a thread.

        Args:
            then: called after that: removes what is superseded.
        """

        def work() -> None:
            self.store.put(f"{upload.name}/{MANIFEST}", upload.manifest)
            try:
                then()
            except StoreError as error:  # what is new is in the store
                upload.not_removed = str(error)

        self._begin(upload, work)

    def _begin(self, upload: Upload, work: Callable[[], None]) -> None:
        threading.Thread(target=self._run, args=(upload, work), name="checkpoint-upload", daemon=True).start()

    def _run(self, upload: Upload, work: Callable[[], None]) -> None:
        try:
            for pause in (*_PAUSES, 0.0):
                try:
                    work()
                    upload.error = ""
                    return
                except StoreError as error:
                    upload.error = str(error)
                if not pause or upload.hurry.is_set():
                    return
                upload.hurry.wait(pause)
        except BaseException as error:  # the training asks for it at the next boundary
            upload.error = f"{type(error).__name__}: {error}"
        finally:
            upload.done.set()

    def _put(self, upload: Upload) -> None:
        self.store.remove(f"{upload.name}/{MANIFEST}")  # of an earlier attempt at the same step
        _in_daemon_threads(lambda file: self.store.copy_in(upload.folder / file, f"{upload.name}/{file}"), upload.files)


def _in_daemon_threads(work: Callable[[str], None], items: Sequence[str]) -> None:
    """Does the work on all items, some side by side, and raises the first error. A pool's threads would keep a process
    that has failed from ending while a store hangs."""
    waiting, errors = deque(items), list[BaseException]()

    def run() -> None:
        while waiting and not errors:
            try:
                item = waiting.popleft()
            except IndexError:  # another thread was faster
                return
            try:
                work(item)
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=run, name="checkpoint-file-upload", daemon=True) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


class UploadQueue:
    """The checkpoints of a run on their way into an object store: one under way, and one that waits for its turn.

    Every rank makes the same calls in the same order. A checkpoint goes in two parts: all ranks' files, then rank 0
    writes the manifest and removes what is superseded.

    Args:
        known: bits per byte by step, of the checkpoints in the store.
        emit: appends an event to the run's log, on rank 0.
    """

    def __init__(
        self, store: Store, ranks: Ranks, config: CheckpointConfig, emit: Emit, known: dict[int, float | None]
    ):
        self.store, self.ranks, self.config, self._emit, self._known = store, ranks, config, emit, known
        self._uploader = Uploader(store)
        self._uploads: list[Upload] = []
        self._finalizing = False

    @property
    def finished(self) -> bool:
        """This rank has finished the present part of the upload under way. All ranks must have, before `commit`."""
        return bool(self._uploads) and self._uploads[0].done.is_set()

    @property
    def empty(self) -> bool:
        """Nothing is under way."""
        return not self._uploads

    @property
    def under_way(self) -> Path | None:
        """The folder on disk from which is being uploaded."""
        return self._uploads[0].folder if self._uploads else None

    def add(self, upload: Upload) -> None:
        """Begins to upload, or takes the place of the one that waits for its turn."""
        if len(self._uploads) > 1:
            late = self.store.where(self._uploads.pop().name)
            message = f"checkpoint {late}: the store is slow, so it stays on this machine's disk"
            self._emit("warning", message=message)
        self._uploads.append(upload)
        if len(self._uploads) == 1:
            self._begin()

    def _begin(self) -> None:
        self._finalizing = False
        self._uploader.start(self._uploads[0])

    def commit(self, *, wait: bool = False) -> None:
        """Goes on with the upload under way once every rank has finished the present part.

        Raises:
            StoreError: with `wait`: the last one could not be written.
        """
        upload = self._uploads[0]
        upload.done.wait()
        errors = self.ranks.all_gather_json(upload.error)
        error = next((f"rank {rank} could not write it: {text}" for rank, text in enumerate(errors) if text), "")
        if not error and not self._finalizing:
            self._finalize(upload)
            return
        self._uploads.pop(0)
        if self._uploads:
            self._begin()
        if not error:
            if upload.not_removed:
                message = f"an older checkpoint could not be removed, and stays: {upload.not_removed}"
                self._emit("warning", message=f"training: {message}")
            forget_superseded(self._known, self.config)
            self._emit("checkpoint_stored", step=upload.step)
            return
        self._known.pop(upload.step, None)  # it must not count as one of those that are kept
        message = f"checkpoint {self.store.where(upload.name)}: {error}"
        if wait and not self._uploads:
            raise StoreError(message)
        self._emit("warning", message=f"{message}; the training goes on, and the one before it stays")

    def _finalize(self, upload: Upload) -> None:
        self._finalizing = True
        self._known[upload.step] = upload.bits_per_byte
        if self.ranks.rank == 0:
            known, folder = dict(self._known), upload.name.rpartition("/")[0]
            upload.done.clear()
            self._uploader.finalize(upload, lambda: remove_superseded(self.store, folder, known, self.config))

    def drain(self) -> None:
        """Waits until all are in the store.

        Raises:
            StoreError: the last one could not be written.
        """
        while self._uploads:
            for upload in self._uploads:
                upload.hurry.set()
            self.commit(wait=True)
