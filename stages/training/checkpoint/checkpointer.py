"""A run's checkpoints: in memory, on disk and in the store, written beside the training.

Every rank makes the same calls in the same order. A checkpoint is copied out of the tensors beside the next forward and
backward passes (`staging`), written from the copy in threads (`saving`), and committed at a later step boundary, when
all ranks have written theirs: its manifest then makes it one. With an object store it is committed on the machines'
disks, and goes to the store from there (`upload`).
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.memory import available_memory
from stages.store.errors import ConfigError, StoreError
from stages.store.events import Emit
from stages.store.hashing import cache_folder
from stages.store.private_files import make_private_folder
from stages.store.store import Store
from stages.training.checkpoint.exchange import Copies
from stages.training.checkpoint.finding import dump_manifest, is_step_folder, step_folder
from stages.training.checkpoint.format import INDEX, MANIFEST, CheckpointFile, Manifest, Probe, join
from stages.training.checkpoint.interval import Timetable
from stages.training.checkpoint.layout import FilePlan, describe_files, local_pieces, plan_files
from stages.training.checkpoint.machines import find_machines
from stages.training.checkpoint.memory_tier import SLOTS, MemoryFolder, make_room, remove_run
from stages.training.checkpoint.restoring import Finder, Found
from stages.training.checkpoint.retention import superseded
from stages.training.checkpoint.saving import Saving, Writer, describe_failure
from stages.training.checkpoint.staging import Slot
from stages.training.checkpoint.upload import Upload, Uploader
from stages.training.config import CheckpointConfig
from stages.training.parallelism.ranks import Ranks

_BYTES_PER_SECOND = 1e9
"""At which the first checkpoint is expected to be written; later ones are measured."""
_MEMORY_SHARE = 0.5
"""Of the memory that is left on a machine, which checkpoints may take."""
_MARGIN = 16 << 20
"""Bytes beside tensors: state, index and manifest."""
_KEPT_ON_DISK = 2
"""Checkpoints that stay on this machine's disk when they go to an object store."""


class Checkpointer:
    """Writes and finds the checkpoints of one run.

    Args:
        store: where checkpoints lie in the end. On local files it is also the disk on which they are written.
        folder: the run's `checkpoints` folder in it.
        emit: appends an event to the run's log, on rank 0.
        accept: says what keeps a checkpoint's state from belonging to this run; empty if nothing.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        ranks: Ranks,
        config: CheckpointConfig,
        emit: Emit,
        accept: Callable[[Mapping[str, Any]], str] = lambda state: "",
    ):
        self.store, self.folder, self.ranks, self.config, self.emit = store, folder, ranks, config, emit
        self.where = store.where(folder)
        self.disk = disk_folder(store, folder)
        self.machines = find_machines(ranks)
        self.attempt = ranks.broadcast_json(secrets.token_hex(16))
        self._memory = self._open_memory()
        memory = self._memory.path if self._memory else None
        self.finder = Finder(ranks, self.machines, store, folder, memory, self.disk, accept)
        self._known: dict[int, float | None] = self.finder.known
        self._slots: list[Slot] = []
        self._kept_slot: Path | None = None
        self._writer: Writer | None = None
        self._saving: Saving | None = None
        self._uploads: list[Upload] = []
        self._uploader = Uploader(store)
        self._finalizing = False
        self._chores = ThreadPoolExecutor(1, "checkpoint-chores")
        self._chore: Future[None] | None = None
        self._committed: Manifest | None = None
        """Of the newest checkpoint that is on disk; after a restart, of the one that was loaded from where checkpoints
        lie in the end."""

    def _open_memory(self) -> MemoryFolder | None:
        if self.config.memory_every_steps == 0:
            return None
        opened: MemoryFolder | None = None
        reason = ""
        try:
            opened = MemoryFolder(self.where)
        except StoreError as error:
            reason = str(error)
        return opened if self._all_agree(reason) else None

    def _all_agree(self, reason: str) -> bool:
        """Whether no rank has a reason against checkpoints in memory; tells the first one."""
        reasons = [found for found in self.ranks.all_gather_json(reason) if found]
        if reasons:
            self.emit("warning", message=f"training: {reasons[0]}; a restart goes back to the last one on disk")
        return not reasons

    def prepare(self, tensors: Mapping[str, Tensor], restored: Found | None) -> None:
        """Reserves and touches the memory that checkpoints need. Before the first step, after `Finder.load`.

        Args:
            tensors: this rank's tensors by name, plain or sharded: always the same ones, filled in place.
            restored: what was loaded, None at the start of a run.

        Raises:
            ConfigError: there is not enough memory.
        """
        plans = plan_files(local_pieces(tensors, owned=True), self.ranks.rank)
        described = self.ranks.all_gather_json([describe_files(plans), [[plan.path, plan.bytes] for plan in plans]])
        index = join(part for part, _ in described).model_dump_json().encode()
        files = [sizes for _, sizes in described]
        mine = sum(plan.bytes for plan in plans)
        copies = self._reserve(plans, files, mine, restored.folder if restored else None)
        # What is newer was refused. It must not count as one of those that are kept.
        self._known = {step: bits for step, bits in self._known.items() if restored and step <= restored.step}
        if restored and restored.candidate.tier == ("disk" if self.store.is_local else "store"):
            self._committed = restored.candidate.manifest
        threads = max(1, min(4, len(os.sched_getaffinity(0)) // self.ranks.local_world))
        # One rank writes index and state: another machine has them by its copy, or is sent them.
        self._writer = Writer(index if self.ranks.rank == 0 else None, copies, threads)
        devices = self.ranks.world
        self.timetable = Timetable(self.config, devices, mine / _BYTES_PER_SECOND)

    def _reserve(
        self, plans: list[FilePlan], files: list[list[tuple[str, int]]], mine: int, restored: Path | None
    ) -> Copies | None:
        kept = [rank for rank in self.machines.kept_by(self.ranks.rank)]
        each = mine + sum(size for rank in kept for _, size in files[rank]) + _MARGIN
        on_machine = self.ranks.all_gather_json(each)
        needed = len(SLOTS) * sum(on_machine[rank] for rank in self.machines.ranks(self.machines.mine))
        copies = None
        if self._memory is not None:
            reason = self._make_room(needed, restored) if self.machines.is_leader else ""
            if self._all_agree(reason):
                copies, reason = self._reserve_slots(plans, files, restored)
            if reason or not self._all_agree(reason):
                self._memory, copies = None, None
        if self._memory is None:
            if mine > available_memory():
                raise ConfigError(
                    f"training: no memory is left to copy a checkpoint into: {mine / 2**30:.1f} GiB are needed and "
                    f"{available_memory() / 2**30:.1f} GiB are available; use fewer workers on this machine or a "
                    "smaller training.model.size"
                )
            self._slots = [Slot(plans)]
        return copies

    def _make_room(self, needed: int, restored: Path | None) -> str:
        """Clears what this run does not need any more; the reason if there is still not enough room."""
        assert self._memory is not None
        for name in SLOTS:
            slot = self._memory.path / name
            if slot != restored:
                _clear(slot)
        for left in make_room(needed, self._memory.path):
            self.emit("memory_freed", run=left.run, bytes=left.bytes)
        held = sum(path.stat().st_size for path in self._memory.path.rglob("*") if path.is_file())
        free, available = self._memory.free_bytes() + held, available_memory() + held
        if needed > free or needed > _MEMORY_SHARE * available:
            return (
                f"no checkpoints in memory: they need {needed / 2**30:.2f} GiB, {free / 2**30:.2f} GiB are free on "
                f"{self._memory.path.parents[1]} and {available / 2**30:.2f} GiB of memory are available (they may "
                f"take {_MEMORY_SHARE:.0%} of it)"
            )
        return ""

    def _reserve_slots(
        self, plans: list[FilePlan], files: list[list[tuple[str, int]]], restored: Path | None
    ) -> tuple[Copies | None, str]:
        """Both slots, or the one that does not hold what was restored, if that has other files."""
        assert self._memory is not None
        folders = sorted((self._memory.path / name for name in SLOTS), key=lambda slot: slot == restored)  # it last
        wanted = {plan.path: plan.bytes for plan in plans}
        same = all(_size(restored / path) == size for path, size in wanted.items()) if restored in folders else True
        if not self._all_same(same):
            self._kept_slot = restored
            folders.remove(restored)  # type: ignore[arg-type]
        try:
            self._plans = plans
            self._slots = [Slot(plans, folder) for folder in folders]
            if self.machines.count == 1:
                return None, ""
            return Copies(self.machines, files, folders, self.ranks.copying), ""
        except OSError as error:
            return None, f"no checkpoints in memory: {error}"

    def _all_same(self, value: bool) -> bool:
        return all(self.ranks.all_gather_json(value))

    @property
    def pending_step(self) -> int | None:
        """The step of the checkpoint that is being written."""
        return self._saving.step if self._saving else None

    @property
    def finished_writing(self) -> bool:
        """This rank's part of the checkpoint under way is written. All ranks' must be, before `commit`."""
        return self._saving is not None and self._saving.done

    @property
    def finished_upload(self) -> bool:
        """This rank's part of the upload under way is in the store, or has failed. All ranks' must be, before
        `commit_upload`."""
        return bool(self._uploads) and self._uploads[0].done.is_set()

    def save(
        self,
        step: int,
        encode: Callable[[], dict[str, Any]],
        *,
        durable: bool = True,
        wait: bool = False,
        bits_per_byte: float | None = None,
    ) -> bool:
        """Begins a checkpoint; with `wait` returns when it is committed where checkpoints lie in the end.

        `wait_copied` must be called before the tensors change.

        Args:
            step: the next batch.
            encode: gives the state beside the tensors, plain JSON values; called later, in a thread of rank 0.
            durable: on disk too. One in memory alone is left out, and False returned, while another is being written.

        Raises:
            StoreError: with `wait`: it could not be written.
        """
        assert self._writer is not None, "prepare comes first"
        if self._saving is not None and not durable:
            return False
        began = time.monotonic()
        self.commit()
        if not (durable and self._committed is not None and step == self._committed.step):
            slot = self._next_slot()
            disk = self.disk / step_folder(step) if durable else None
            self._saving = Saving(step, slot, disk, began, bits_per_byte=bits_per_byte)
            self._writer.start(self._saving, encode if self.ranks.rank == 0 else None)
            self.timetable.saved("durable" if durable else "memory")
            self._saving.stall = time.monotonic() - began
        if wait:
            self.commit(wait=True)
            self._drain()
        return True

    def _next_slot(self) -> Slot:
        """The one whose content is older: the other holds the last checkpoint in memory."""
        slot = self._slots.pop(0)
        self._slots.append(slot)
        return slot

    def weight_files(self) -> list[dict[str, Any]]:
        """The files with weights of the newest committed checkpoint, and its index, as entries relative to the run."""
        assert self._committed is not None, "nothing is committed yet"
        folder = f"{self.folder.rsplit('/', 1)[-1]}/{step_folder(self._committed.step)}"
        return [
            {"path": f"{folder}/{entry.path}", "bytes": entry.bytes, "sha256": entry.sha256}
            for entry in self._committed.files
            if entry.path == INDEX or entry.path.startswith("weights-")
        ]

    def wait_copied(self) -> None:
        """Until the tensors may change."""
        if self._saving is not None:
            began = time.monotonic()
            self._saving.slot.wait_copied()
            self._saving.stall += time.monotonic() - began

    def note(self, batch: int, loss: float, grad_norm: float) -> None:
        """What a batch gave: if it is the first after a checkpoint, a restart from there can compare."""
        if self._saving is not None and self._saving.step == batch:
            self._saving.probe = Probe(batch=batch, loss=loss, grad_norm=grad_norm)

    def commit(self, *, wait: bool = False) -> None:
        """Commits the checkpoint under way, waiting for it if need be. Every rank must call it together.

        Raises:
            StoreError: with `wait`: it is not on disk.
        """
        saving, self._saving = self._saving, None
        if saving is None or saving.future is None:
            return
        began = time.monotonic()
        saving.future.result()
        files = [entry.model_dump(mode="json", exclude_none=True) for entry in saving.files]
        parts = self.ranks.all_gather_json([files, saving.disk_error])
        entries = [CheckpointFile.model_validate(entry) for part, _ in parts for entry in part]
        error = next((f"rank {rank} could not write it: {text}" for rank, (_, text) in enumerate(parts) if text), "")
        if self.machines.is_leader and saving.slot.folder is not None and not saving.memory_error:
            try:
                write_manifest(saving.slot.folder, dump_manifest(self._manifest(saving, entries, "xxh3")))
            except OSError as failure:
                saving.memory_error = describe_failure(failure, saving.slot.folder)
        if saving.memory_error:
            self.emit("warning", message=f"no checkpoint in memory of step {saving.step}: {saving.memory_error}")
        if saving.disk is not None and not error:
            manifest_file = dump_manifest(self._manifest(saving, entries, "sha256"))
            errors = self.ranks.all_gather_json(self._write_manifest(saving, manifest_file))
            error = next((text for text in errors if text), "")
            if not error:
                self._committed = self._manifest(saving, entries, "sha256")
                self._after_commit(saving, manifest_file)
        self._unlock_slot()
        now = time.monotonic()
        saving.stall += now - began
        kind = "memory" if saving.disk is None else "durable"
        threads = torch.get_num_threads() if self.ranks.device.type == "cpu" else 0
        self.timetable.measured(kind, saving.stall + (saving.cpu_seconds / threads if threads else 0.0))
        if error:
            location = self.store.where(f"{self.folder}/{step_folder(saving.step)}")
            message = f"checkpoint {location}: {error}"
            if wait:
                raise StoreError(message)
            self.emit("warning", message=f"{message}; the training goes on, and the one before it stays")
        elif saving.disk is not None or not saving.memory_error:
            self.emit(
                "checkpoint" if saving.disk is not None else "memory_checkpoint",
                durable=saving.disk is not None,
                step=saving.step,
                seconds=round(now - saving.began, 3),
                stall_seconds=round(saving.stall, 3),
            )

    def _manifest(self, saving: Saving, entries: list[CheckpointFile], checksum: str) -> Manifest:
        only = [
            CheckpointFile(path=entry.path, bytes=entry.bytes, **{checksum: getattr(entry, checksum)})
            for entry in entries
        ]
        return Manifest(
            step=saving.step,
            attempt=self.attempt,
            world=self.ranks.world,
            probe=saving.probe,
            bits_per_byte=saving.bits_per_byte,
            files=only,
        )

    def _write_manifest(self, saving: Saving, manifest: bytes) -> str:
        """Makes what is on disk a checkpoint; the reason if that fails."""
        assert saving.disk is not None
        try:
            if self.store.is_local:
                if self.ranks.rank == 0:
                    self.store.put(f"{self.folder}/{saving.disk.name}/{MANIFEST}", manifest)
            elif self.machines.is_leader:
                write_manifest(saving.disk, manifest)
        except (StoreError, OSError) as error:
            return str(error)
        return ""

    def _after_commit(self, saving: Saving, manifest: bytes) -> None:
        """Removes what is superseded, or begins to upload."""
        assert saving.disk is not None
        if self.store.is_local:
            self._known[saving.step] = saving.bits_per_byte
            if self.ranks.rank == 0:
                self._do(self._remove_superseded, dict(self._known))
            for step in superseded(self._known, self.config):
                del self._known[step]
        else:
            if self.machines.is_leader:
                self._do(_thin_out, saving.disk, self._uploads[0].folder if self._uploads else None)
            self._queue_upload(saving, manifest)

    def _do(self, chore: Callable[..., None], *arguments: Any) -> None:
        self._chore = self._chores.submit(chore, *arguments)

    def _remove_superseded(self, known: Mapping[int, float | None]) -> None:
        """Each one's manifest first, so that a half-removed one is not a checkpoint."""
        for step in superseded(known, self.config):
            name = f"{self.folder}/{step_folder(step)}"
            self.store.remove(f"{name}/{MANIFEST}")
            self.store.remove(name)

    def _unlock_slot(self) -> None:
        """After the first commit what was restored from memory is not needed any more: its room is."""
        if self._kept_slot is None or self._memory is None:
            return
        kept, self._kept_slot = self._kept_slot, None
        if self.machines.is_leader:
            _clear(kept)
        self.ranks.all_gather_json(None)
        try:
            self._slots.insert(0, Slot(self._plans, kept))
        except OSError as error:
            self.emit("warning", message=f"training: one slot for checkpoints in memory only: {error}")

    def _queue_upload(self, saving: Saving, manifest: bytes) -> None:
        """Begins to upload, or takes the place of the one that waits for its turn."""
        assert saving.disk is not None
        name = f"{self.folder}/{step_folder(saving.step)}"
        files = [entry.path for entry in saving.files]
        upload = Upload(saving.step, name, saving.disk, files, manifest, saving.bits_per_byte)
        if len(self._uploads) > 1:
            late = self.store.where(self._uploads[1].name)
            self.emit("warning", message=f"checkpoint {late}: the store is slow, so it stays on this machine's disk")
        del self._uploads[1:]
        self._uploads.append(upload)
        if len(self._uploads) == 1:
            self._begin_upload()

    def _begin_upload(self) -> None:
        self._finalizing = False
        self._uploader.start(self._uploads[0])

    def commit_upload(self, *, wait: bool = False) -> None:
        """Goes on with the upload under way, whose present part every rank has finished. Every rank calls it together.

        Raises:
            StoreError: with `wait`: it could not be written.
        """
        upload = self._uploads[0]
        upload.done.wait()
        errors = self.ranks.all_gather_json(upload.error)
        error = next((f"rank {rank} could not write it: {text}" for rank, text in enumerate(errors) if text), "")
        if not error and not self._finalizing:
            self._finalizing = True
            if self.ranks.rank == 0:
                self._known[upload.step] = upload.bits_per_byte
                known = dict(self._known)
                upload.done.clear()
                self._uploader.finalize(upload, lambda: self._remove_superseded(known))
            return
        self._uploads.pop(0)
        if self._uploads:
            self._begin_upload()
        if error:
            self._known.pop(upload.step, None)  # it must not count as one of those that are kept
            message = f"checkpoint {self.store.where(upload.name)}: {error}"
            if wait and not self._uploads:
                raise StoreError(message)
            self.emit("warning", message=f"{message}; the training goes on, and the one before it stays")
        elif self.ranks.rank == 0:
            for step in superseded(self._known, self.config):
                del self._known[step]
            self.emit("checkpoint_stored", step=upload.step)

    def _drain(self) -> None:
        """Waits until everything is where it belongs."""
        while self._uploads:
            for upload in self._uploads:
                upload.hurry.set()
            self.commit_upload(wait=True)
        if self._chore is not None:
            self._chore.result()

    def abandon(self) -> None:
        """After an exception: one process alone commits what is under way, so that no thread writes after it.

        Several ranks cannot: the others may be gone. Their half-written checkpoint is not looked at again.
        """
        if self.ranks.alone:
            self.commit()
            self._close_threads()

    def close(self) -> None:
        """The run has ended: what only served to resume it is removed from this machine. Every rank calls it."""
        self._close_threads()
        self.ranks.all_gather_json(None)
        if self.machines.is_leader:
            forget_run(self.store, self.folder)

    def _close_threads(self) -> None:
        if self._writer is not None:
            self._writer.close()
        self._chores.shutdown()
        for slot in self._slots:
            slot.close()
        if self._memory is not None:
            self._memory.close()


def forget_run(store: Store, folder: str) -> None:
    """Removes from this machine what only served to resume a run that has ended: its checkpoints in memory, and those
    on disk that are in an object store too.

    Args:
        folder: the run's `checkpoints` folder.
    """
    remove_run(store.where(folder))
    if not store.is_local:
        shutil.rmtree(disk_folder(store, folder), ignore_errors=True)


def disk_folder(store: Store, folder: str) -> Path:
    """Where a machine writes a run's checkpoints: in the store if that is on local files, else in this user's cache."""
    if store.is_local:
        return store.local_path(folder)
    return cache_folder() / "checkpoints" / hashlib.sha256(store.where(folder).encode()).hexdigest()[:16]


def write_manifest(folder: Path, content: bytes) -> None:
    """On this machine's disk or memory: the last file of a checkpoint, whole or not there."""
    make_private_folder(folder)
    aside = folder / f".{MANIFEST}.{secrets.token_hex(4)}"
    with aside.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(folder / MANIFEST)


def _thin_out(newest: Path, uploading: Path | None) -> None:
    """Keeps the newest checkpoints on this machine's disk, and the one on its way to a slow store. One of a later step
    than the newest was refused at the start, and does not count."""
    disk = newest.parent
    steps = (path for path in disk.iterdir() if is_step_folder(path.name) and path.name <= newest.name)
    whole = sorted(path for path in steps if (path / MANIFEST).is_file())
    for path in whole[:-_KEPT_ON_DISK]:
        if path == uploading:
            continue
        (path / MANIFEST).unlink(missing_ok=True)
        shutil.rmtree(path, ignore_errors=True)
    for path in disk.glob(".fetched-*"):
        shutil.rmtree(path, ignore_errors=True)


def _clear(folder: Path) -> None:
    """Empties a slot, its manifest first."""
    (folder / MANIFEST).unlink(missing_ok=True)
    for path in folder.iterdir():
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.lstat().st_size
    except FileNotFoundError:
        return -1
