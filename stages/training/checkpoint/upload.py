"""From this machine's disk to an object store, in a thread of its own: one checkpoint at a time, manifest last.

A store that is away stops neither the training nor the next checkpoint: one that waits for its turn is replaced by the
next, and what is whole in the store stays until something newer is.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from stages.store.errors import StoreError
from stages.store.store import Store
from stages.training.checkpoint.format import MANIFEST

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
            then: called after that.
        """

        def work() -> None:
            self.store.put(f"{upload.name}/{MANIFEST}", upload.manifest)
            then()

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
        with ThreadPoolExecutor(_THREADS) as pool:
            list(pool.map(lambda file: self.store.copy_in(upload.folder / file, f"{upload.name}/{file}"), upload.files))
