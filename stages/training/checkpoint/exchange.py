"""Checkpoint files between machines: a copy of each part on the next one, and what a restart fetches from there."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from stages.store.names import check_file_name
from stages.training.checkpoint.format import MANIFEST, CheckpointFile
from stages.training.checkpoint.machines import Machines

CHUNK = 64 << 20
"""Bytes of one message."""


class Copies:
    """The copies of other ranks' parts that this rank keeps in its machine's memory, and of its own on the next one.

    Args:
        files: name and bytes of each rank's files.
        group: a process group that nobody else uses.
    """

    def __init__(self, machines: Machines, files: Sequence[Sequence[tuple[str, int]]], group: Any):
        self.group = group
        keeper = machines.keeper(machines.rank)
        assert keeper is not None, "with one machine there is none to keep copies"
        self.keeper = keeper
        self.kept = {rank: files[rank] for rank in machines.kept_by(machines.rank)}

    def reserve(self, folder: Path) -> None:
        """Makes room in a slot for the copies that this rank keeps, so that none is lacking later.

        Raises:
            OSError: there is no room.
        """
        for name, size in (item for kept in self.kept.values() for item in kept):
            _allocate(folder / name, size)

    def exchange(self, sent: Sequence[memoryview], small: Mapping[str, bytes], folder: Path) -> None:
        """Sends this rank's files and receives those that it keeps. Every rank calls it, in a thread.

        Args:
            sent: the contents of this rank's files.
            small: files whose size is not known beforehand, by name.
            folder: the slot.

        Raises:
            OSError: there is no room for the small ones.
            RuntimeError: a rank is gone.
        """
        outgoing: list[Tensor] = [
            _as_tensor(json.dumps({name: len(content) for name, content in small.items()}).encode())
        ]
        outgoing.insert(0, torch.tensor([len(outgoing[0])]))
        contents = [*map(_as_tensor, small.values()), *map(_as_tensor, sent)]
        outgoing += [chunk for content in contents for chunk in _chunks(content)]
        failures: list[OSError] = []
        receiving = [self._receive(rank, files, folder, failures) for rank, files in self.kept.items()]
        wanted = [next(steps, None) for steps in receiving]
        while outgoing or any(buffer is not None for buffer in wanted):
            works = [dist.isend(outgoing.pop(0), self.keeper, group=self.group)] if outgoing else []
            for rank, buffer in zip(self.kept, wanted, strict=True):
                if buffer is not None:
                    works.append(dist.irecv(buffer, rank, group=self.group))
            for work in works:
                work.wait()
            wanted = [next(steps, None) for steps in receiving]
        if failures:
            raise failures[0]

    def _receive(
        self, rank: int, files: Sequence[tuple[str, int]], folder: Path, failures: list[OSError]
    ) -> Iterator[Tensor]:
        """Yields the buffers into which a rank's messages go, in order, and writes what has arrived.

        Args:
            failures: takes what kept it from being written: the rest is received all the same, since it is sent.
        """
        length = torch.empty(1, dtype=torch.int64)
        yield length
        header = torch.empty(int(length), dtype=torch.uint8)
        yield header
        small = json.loads(header.numpy().tobytes())
        try:
            for name, size in small.items():
                (folder / check_file_name(name)).unlink(missing_ok=True)
                _allocate(folder / name, size)
        except OSError as error:
            failures.append(error)
        for name, size in (*small.items(), *files):
            for start in range(0, size, CHUNK):
                buffer = torch.empty(min(CHUNK, size - start), dtype=torch.uint8)
                yield buffer
                try:
                    if not failures:
                        _write(folder / name, start, buffer)
                except OSError as error:
                    failures.append(error)


def bring(
    files: Iterable[CheckpointFile],
    wanted: Sequence[set[str]],
    present: Mapping[int, frozenset[str]],
    machines: Machines,
    folder: Path | None,
    group: Any,
) -> None:
    """Copies files from machines that have them to those that need them. Every rank calls it, with the same arguments
    but the folder.

    Args:
        wanted: the names that each machine needs.
        present: those that it has.
        folder: the checkpoint's on this machine, created if need be; None on machines that need nothing and have none.
    """
    for entry in files:
        holders = [machine for machine, names in sorted(present.items()) if entry.path in names]
        for machine in range(machines.count):
            if entry.path not in wanted[machine] or machine in holders:
                continue
            source, target = machines.ranks(holders[0])[0], machines.ranks(machine)[0]
            if machines.rank == source:
                assert folder is not None
                _send(folder / entry.path, target, group)
            elif machines.rank == target:
                assert folder is not None
                _receive(folder / entry.path, entry.bytes, source, group)


def _send(path: Path, target: int, group: Any) -> None:
    with path.open("rb") as file:
        while content := file.read(CHUNK):
            dist.send(torch.frombuffer(bytearray(content), dtype=torch.uint8), target, group=group)


def _receive(path: Path, size: int, source: int, group: Any) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    (path.parent / MANIFEST).unlink(missing_ok=True)  # of another checkpoint in the same slot
    _allocate(path, size)
    for start in range(0, size, CHUNK):
        buffer = torch.empty(min(CHUNK, size - start), dtype=torch.uint8)
        dist.recv(buffer, source, group=group)
        _write(path, start, buffer)


def _as_tensor(content: bytes | memoryview) -> Tensor:
    return torch.frombuffer(bytearray(content) if isinstance(content, bytes) else content, dtype=torch.uint8)


def _chunks(content: Tensor) -> Iterable[Tensor]:
    return (content[start : start + CHUNK] for start in range(0, len(content), CHUNK))


def _allocate(path: Path, size: int) -> None:
    """An empty file with room, so that a full file system says so here."""
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        os.ftruncate(handle, size)
        if size:
            os.posix_fallocate(handle, 0, size)
    finally:
        os.close(handle)


def _write(path: Path, start: int, content: Tensor) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        view = memoryview(content.numpy())
        while view:
            count = os.pwrite(handle, view, start)
            view, start = view[count:], start + count
    finally:
        os.close(handle)
