"""Memory into which a rank's tensors are copied for a checkpoint: laid out as the files that will be written.

The memory is reserved and touched before the first step, so that a copy costs no page faults, not even the first. The
copy runs beside the next forward and backward passes, in a thread or, on a GPU, in a stream of its own; it must be done
before the weights change: `Slot.wait_copied`.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.training.checkpoint.layout import FilePlan, as_bytes

_POPULATE_WRITE = 23
"""madvise(2): map and touch all pages at once; Linux 5.14."""


class Slot:
    """Room for one checkpoint of this rank.

    Args:
        plans: the rank's files.
        folder: on a memory file system, where the files then lie and survive this process; absent: memory of this
            process alone.

    Raises:
        OSError: there is not enough memory. Nothing of it stays reserved.
    """

    def __init__(self, plans: Sequence[FilePlan], folder: Path | None = None):
        self.plans, self.folder = plans, folder
        self.memory: list[mmap.mmap] = []
        """One a file, as long as it."""
        self._targets: list[tuple[Tensor, Tensor]] = []
        self._copied: Future[None] | None = None
        self._event: Any = None
        self._pinned = False
        self.copy_cpu_seconds = 0.0
        """Processor time of the last copy."""
        try:
            for plan in plans:
                self.memory.append(_reserve(plan.bytes, folder / plan.path if folder else None))
        except OSError:
            self.close()
            raise
        for plan, memory in zip(plans, self.memory, strict=True):
            memory[: len(plan.header)] = plan.header
            for piece, offset in plan.pieces:
                part = torch.frombuffer(memory, dtype=torch.uint8, count=piece.bytes, offset=offset)
                self._targets.append((part, as_bytes(piece.tensor)))
        self._on_gpu = any(source.is_cuda for _, source in self._targets)
        self._pinned = self._on_gpu and all(_pin(memory) for memory in self.memory)
        self._stream = torch.cuda.Stream() if self._on_gpu else None

    @property
    def bytes(self) -> int:
        return sum(plan.bytes for plan in self.plans)

    def start_copy(self, pool: ThreadPoolExecutor) -> None:
        """Begins to copy the tensors as they are now."""
        if self._stream is None:
            self._copied = pool.submit(self._copy_on_host)
            return
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for target, source in self._targets:
                target.copy_(source, non_blocking=self._pinned)
            self._event = torch.cuda.Event()
            self._event.record(self._stream)

    def _copy_on_host(self) -> None:
        # Not PyTorch's copy: its threads would take turns with the training's. `memmove` releases Python's lock.
        began = time.thread_time()
        for target, source in self._targets:
            ctypes.memmove(target.data_ptr(), source.data_ptr(), target.numel())
        self.copy_cpu_seconds = time.thread_time() - began

    def wait_copied(self) -> None:
        """Until the tensors may change. On a GPU the device waits, not the host."""
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)
        elif self._copied is not None:
            self._copied.result()

    def wait_readable(self) -> None:
        """Until the memory holds the copy; for the thread that reads it."""
        if self._event is not None:
            self._event.synchronize()
        elif self._copied is not None:
            self._copied.result()

    def close(self) -> None:
        """Gives the memory back; files on a memory file system stay."""
        self._targets.clear()
        for memory in self.memory:
            if self._pinned:
                torch.cuda.cudart().cudaHostUnregister(_address(memory))
            try:
                memory.close()
            except BufferError:  # a view of it is still held: given back with the last one
                continue
        self.memory.clear()


def _reserve(size: int, path: Path | None) -> mmap.mmap:
    """Memory of `size` bytes that is there: a file system without room says so here, and not by a signal later."""
    if path is None:
        memory = mmap.mmap(-1, size)
    else:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.ftruncate(handle, size)
            os.posix_fallocate(handle, 0, size)
            memory = mmap.mmap(handle, size)
        finally:
            os.close(handle)
    try:
        memory.madvise(_POPULATE_WRITE)
    except OSError:  # an older kernel
        for page in range(0, size, mmap.PAGESIZE):
            memory[page] = memory[page]  # it may hold a checkpoint
    return memory


def _address(memory: mmap.mmap) -> int:
    return torch.frombuffer(memory, dtype=torch.uint8).data_ptr()


def _pin(memory: mmap.mmap) -> bool:
    """Makes the memory such that a GPU copies to it by itself; False where the driver refuses."""
    return int(torch.cuda.cudart().cudaHostRegister(_address(memory), len(memory), 0)) == 0
