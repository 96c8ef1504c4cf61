"""One checkpoint on its way: copied into a slot, then written from there in threads beside the training."""

from __future__ import annotations

import errno
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from stages.store.private_files import make_private_folder
from stages.store.store import describe_disk_error
from stages.training.checkpoint.exchange import Copies
from stages.training.checkpoint.format import INDEX, MANIFEST, STATE, CheckpointFile, Probe
from stages.training.checkpoint.staging import Slot
from stages.training.checkpoint.writing import write_file

_NICENESS = 19
"""Of the writing threads: on a CPU they take what the training's threads leave, and everything once it waits for
them. At 10 a save of 1.5 GB cost 20 steps 1.3 s on two cores, at 19 and with the rest of the writing 0.6 s."""


@dataclass
class Saving:
    """A checkpoint that is being written."""

    step: int
    slot: Slot
    disk: Path | None
    """Where this machine writes it; None for one in memory alone."""
    began: float
    stall: float = 0.0
    """Seconds that the training waited for it so far."""
    probe: Probe | None = None
    bits_per_byte: float | None = None
    cpu_seconds: float = 0.0
    """Processor time of the writing threads."""
    files: list[CheckpointFile] = field(default_factory=list)
    disk_error: str = ""
    """Why it is not on disk; it is in memory all the same."""
    memory_error: str = ""
    """Why it is not in memory; it is on disk all the same."""
    future: Future[None] | None = None

    @property
    def done(self) -> bool:
        return self.future is not None and self.future.done()


class Writer:
    """Writes this rank's part of checkpoints, one after the other.

    Args:
        index: the content of `index.json`, where this rank is to write it.
        copies: the copies on other machines, if there are several machines.
        threads: files that are written side by side.
    """

    def __init__(self, index: bytes | None, copies: Copies | None, threads: int):
        self.index, self.copies = index, copies
        self.copying = ThreadPoolExecutor(1, "checkpoint-copy")
        self._writing = ThreadPoolExecutor(1, "checkpoint", initializer=_be_nice)
        self._files = ThreadPoolExecutor(threads, "checkpoint-file", initializer=_be_nice)
        self._lock = threading.Lock()

    def start(self, saving: Saving, encode: Callable[[], dict[str, Any]] | None) -> None:
        """Begins to copy the tensors and to write what was copied.

        Args:
            encode: gives the content of `state.json`, where this rank is to write it; called in a thread.
        """
        if saving.slot.folder is not None:  # not a checkpoint any more
            (saving.slot.folder / MANIFEST).unlink(missing_ok=True)
        saving.slot.start_copy(self.copying)
        saving.future = self._writing.submit(self._write, saving, encode)

    def close(self) -> None:
        """Waits for the threads."""
        for pool in (self._writing, self._files, self.copying):
            pool.shutdown()

    def _write(self, saving: Saving, encode: Callable[[], dict[str, Any]] | None) -> None:
        began = time.thread_time()
        small = {INDEX: self.index} if self.index is not None else {}
        if encode is not None:
            small[STATE] = json.dumps(encode(), allow_nan=False).encode()
        contents = [(name, memoryview(content)) for name, content in small.items()]
        if saving.disk is not None:
            try:
                make_private_folder(saving.disk)
                if saving.disk.is_symlink():
                    raise OSError(errno.ELOOP, "it is a link; remove it", str(saving.disk))
                (saving.disk / MANIFEST).unlink(missing_ok=True)
            except OSError as error:
                saving.disk_error = describe_failure(error, saving.disk)
        saving.slot.wait_readable()
        plans, memory = saving.slot.plans, saving.slot.memory
        contents += [(plan.path, memoryview(part)) for plan, part in zip(plans, memory, strict=True)]
        saving.files = list(self._files.map(lambda item: self._write_one(saving, *item), contents))
        if saving.slot.folder is not None:
            try:
                for name, content in small.items():
                    _replace(saving.slot.folder / name, content)
            except OSError as error:  # room was reserved for the tensors alone
                saving.memory_error = describe_failure(error, saving.slot.folder)
            if self.copies is not None:
                try:
                    self.copies.exchange([memoryview(part) for part in memory], small, saving.slot.folder)
                except OSError as error:
                    saving.memory_error = describe_failure(error, saving.slot.folder)
        with self._lock:
            saving.cpu_seconds += time.thread_time() - began + saving.slot.copy_cpu_seconds

    def _write_one(self, saving: Saving, name: str, content: memoryview) -> CheckpointFile:
        began = time.thread_time()
        try:
            if saving.disk is not None and not saving.disk_error:
                try:
                    return write_file(content, name, saving.disk / name)
                except OSError as error:
                    saving.disk_error = describe_failure(error, saving.disk)
            return write_file(content, name, None)
        finally:
            with self._lock:
                saving.cpu_seconds += time.thread_time() - began


def _replace(path: Path, content: bytes) -> None:
    path.unlink(missing_ok=True)
    path.write_bytes(content)


def describe_failure(error: OSError, place: Path) -> str:
    """For a message: what could not be written, and what to do about it where that is known."""
    return describe_disk_error(error, place) or f"cannot write {error.filename or place}: {error.strerror or error}"


def _be_nice() -> None:
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICENESS)
