"""The slots that a rank's checkpoints are copied into: two in the machine's memory file system, else one of its own."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from stages.memory import available_memory
from stages.store.errors import ConfigError, StoreError
from stages.store.events import Emit
from stages.training.checkpoint.exchange import Copies
from stages.training.checkpoint.format import MANIFEST
from stages.training.checkpoint.layout import FilePlan
from stages.training.checkpoint.machines import Machines
from stages.training.checkpoint.memory_tier import SLOTS, MemoryFolder, make_room, remove_run
from stages.training.checkpoint.staging import Slot
from stages.training.parallelism.ranks import Ranks

MEMORY_SHARE = 0.5
"""Of the memory that is left on a machine, which checkpoints may take."""
_MARGIN = 16 << 20
"""Bytes beside tensors: state, index and manifest."""
_GIB = 1 << 30


class Slots:
    """One rank's slots. Every rank makes the same calls in the same order.

    Args:
        where: the place of the run's `checkpoints` folder, which names its folder in memory.
        wanted: whether checkpoints are to be in memory.
        emit: appends an event to the run's log, on rank 0: it says why there are none in memory.
    """

    def __init__(self, where: str, wanted: bool, ranks: Ranks, machines: Machines, emit: Emit):
        self.where, self.ranks, self.machines, self._emit = where, ranks, machines, emit
        self.copies: Copies | None = None
        """Where there are several machines."""
        self._slots: list[Slot] = []
        self._plans: Sequence[FilePlan] = ()
        self._restored: Path | None = None
        """A slot that holds what the run was restored from, in files of another layout: it is reserved later."""
        self._memory: MemoryFolder | None = None
        if wanted:
            try:
                self._memory, reason = MemoryFolder(where), ""
            except StoreError as error:
                reason = str(error)
            self._give_up_if(reason)

    @property
    def folder(self) -> Path | None:
        """The run's folder in this machine's memory; None if there are no checkpoints in memory."""
        return self._memory.path if self._memory is not None else None

    def reserve(
        self, plans: Sequence[FilePlan], files: Sequence[Sequence[tuple[str, int]]], restored: Path | None
    ) -> None:
        """Reserves and touches memory.

        Args:
            plans: this rank's files.
            files: name and bytes of each rank's files.
            restored: the folder that the run was restored from; its content is kept until there is something newer.

        Raises:
            ConfigError: there is not enough memory for a single slot.
        """
        self._plans = plans
        if self._memory is not None:
            kept = sum(size for rank in self.machines.kept_by(self.ranks.rank) for _, size in files[rank])
            each = self.ranks.all_gather_json(sum(plan.bytes for plan in plans) + kept + _MARGIN)
            needed = len(SLOTS) * sum(each[rank] for rank in self.machines.ranks(self.machines.mine))
            try:
                reason = self._make_room(needed, restored) if self.machines.is_leader else ""
            except OSError as error:
                reason = f"no checkpoints in memory: {error}"
            self._give_up_if(reason)
        if self._memory is not None:
            self._give_up_if(self._reserve_in_memory(files, restored))
        if self._memory is None:
            self._slots = [self._reserve_one()]

    def _make_room(self, needed: int, restored: Path | None) -> str:
        """Clears what is not needed any more on this machine; the reason if there is still not enough room."""
        assert self._memory is not None
        for name in SLOTS:
            if self._memory.path / name != restored:
                _clear(self._memory.path / name)
        for left in make_room(needed, self._memory.path):
            self._emit("memory_freed", run=left.run, bytes=left.bytes)
        held = sum(path.stat().st_size for path in self._memory.path.rglob("*") if path.is_file())
        free, available = self._memory.free_bytes() + held, available_memory() + held
        if needed <= free and needed <= MEMORY_SHARE * available:
            return ""
        return (
            f"no checkpoints in memory: they need {needed / _GIB:.2f} GiB; {free / _GIB:.2f} GiB are free on "
            f"{self._memory.path.parents[1]}, and of {available / _GIB:.2f} GiB of available memory they may take "
            f"{MEMORY_SHARE:.0%}"
        )

    def _reserve_in_memory(self, files: Sequence[Sequence[tuple[str, int]]], restored: Path | None) -> str:
        """Reserves both slots, or the one that does not hold what was restored if that has other files."""
        assert self._memory is not None
        folders = [self._memory.path / name for name in SLOTS]
        if restored in folders:
            folders.sort(key=lambda folder: folder == restored)  # the first save goes into the other one
            same = all(_has_layout(restored / plan.path, plan) for plan in self._plans)
            if not all(self.ranks.all_gather_json(same)):
                self._restored = folders.pop()
        try:
            self._slots = [Slot(self._plans, folder) for folder in folders]
            if self.machines.count > 1:
                self.copies = Copies(self.machines, files, self.ranks.copying)
                for folder in folders:
                    self.copies.reserve(folder)
        except OSError as error:
            return f"no checkpoints in memory: {error}"
        return ""

    def _give_up_if(self, reason: str) -> None:
        """Does without checkpoints in memory if any rank has a reason to."""
        first = self.ranks.first_message(reason)
        if not first:
            return
        self._emit("warning", message=f"training: {first}; a restart goes back to the last checkpoint on disk")
        for slot in self._slots:
            slot.close()
        if self._memory is not None:
            self._memory.close()
            if self.machines.is_leader:
                remove_run(self.where)
        self._memory, self.copies, self._slots = None, None, []

    def _reserve_one(self) -> Slot:
        needed, available = sum(plan.bytes for plan in self._plans), available_memory()
        if needed > available:
            raise ConfigError(
                f"training: no memory is left to copy a checkpoint into: {needed / _GIB:.1f} GiB are needed and "
                f"{available / _GIB:.1f} GiB are available; use fewer workers on this machine or a smaller "
                "training.model.size"
            )
        return Slot(self._plans)

    def next(self) -> Slot:
        """The slot with the older content: the other holds the last checkpoint in memory."""
        slot = self._slots.pop(0)
        self._slots.append(slot)
        return slot

    def take_back(self) -> None:
        """What was written to the slot that `next` gave is no checkpoint: it is the next one to be written to again, so
        that the other, which holds the last checkpoint in memory, stays."""
        self._slots.insert(0, self._slots.pop())

    def after_commit(self) -> None:
        """There is something newer than what was restored: its slot is needed now."""
        if self._restored is None or self._memory is None:
            return
        folder, self._restored = self._restored, None
        if self.machines.is_leader:
            _clear(folder)
        self.ranks.all_gather_json(None)  # nobody writes before it is empty
        try:
            slot = Slot(self._plans, folder)
            if self.copies is not None:
                self.copies.reserve(folder)
            self._slots.insert(0, slot)
            reason = ""
        except OSError as error:
            reason = f"no checkpoints in memory: {error}"
        self._give_up_if(reason)
        if not self._slots:
            self._slots = [self._reserve_one()]

    def close(self) -> None:
        """Gives memory back; what is in files stays for the next attempt."""
        for slot in self._slots:
            slot.close()
        if self._memory is not None:
            self._memory.close()


def _clear(folder: Path) -> None:
    """Empties a slot, its manifest first."""
    with suppress(IsADirectoryError):
        (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _has_layout(path: Path, plan: FilePlan) -> bool:
    """Whether a file has the size and the header of one that is to be written in its place: reserving the slot then
    changes nothing in it."""
    try:
        if path.lstat().st_size != plan.bytes:
            return False
        with path.open("rb") as file:
            return file.read(len(plan.header)) == plan.header
    except FileNotFoundError:
        return False
