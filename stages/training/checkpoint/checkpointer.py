"""A run's checkpoints: in memory, on disk and in the store, written beside the training.

Every rank makes the same calls in the same order. A checkpoint is copied out of the tensors beside the next forward and
backward passes (`staging`), written from the copy in threads (`saving`), and committed at a later step boundary, when
all ranks have written theirs: its manifest then makes it one. With an object store it is committed on the machines'
disks, and goes to the store from there (`upload`).
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from stages.store.errors import StoreError
from stages.store.events import Emit
from stages.store.hashing import sha256_file
from stages.store.private_files import make_private_folder
from stages.store.store import Store
from stages.training.checkpoint.finding import Candidate, dump_manifest, half_written, step_folder
from stages.training.checkpoint.format import MANIFEST, CheckpointFile, Manifest, Probe, is_for_export, join
from stages.training.checkpoint.interval import Timetable
from stages.training.checkpoint.layout import describe_files, local_pieces, plan_files
from stages.training.checkpoint.machines import find_machines
from stages.training.checkpoint.places import disk_folder, forget_run
from stages.training.checkpoint.restoring import Finder, Found
from stages.training.checkpoint.retention import forget_superseded, remove_half_written, remove_superseded, thin_out
from stages.training.checkpoint.saving import Saving, Writer, describe_failure
from stages.training.checkpoint.slots import Slots
from stages.training.checkpoint.upload import Upload, UploadQueue
from stages.training.config import CheckpointConfig
from stages.training.parallelism.ranks import Ranks

_BYTES_PER_SECOND = 1e9
"""At which the first checkpoint is expected to be written; later ones are measured."""


class Checkpointer:
    """Writes and finds the checkpoints of one run.

    Args:
        store: where checkpoints lie in the end. On local files it is also the disk on which they are written.
        folder: the run's `checkpoints` folder in it.
        emit: appends an event to the run's log, on rank 0.
        read_state: see `Finder`.
    """

    def __init__(
        self,
        store: Store,
        folder: str,
        ranks: Ranks,
        config: CheckpointConfig,
        emit: Emit,
        read_state: Callable[[Mapping[str, Any]], Any] = dict,
    ):
        self.store, self.folder, self.ranks, self.config, self.emit = store, folder, ranks, config, emit
        self.where = store.where(folder)
        self.disk = disk_folder(store, folder)
        self.machines = find_machines(ranks)
        self.attempt = ranks.broadcast_json(secrets.token_hex(16))
        self.slots = Slots(self.where, config.memory_every_steps != 0, ranks, self.machines, emit)
        self.finder = Finder(ranks, self.machines, store, folder, self.slots.folder, self.disk, read_state)
        self._known: dict[int, float | None] = self.finder.known
        self.uploads = UploadQueue(store, ranks, config, emit, self._known)
        self._writer: Writer | None = None
        self._saving: Saving | None = None
        self._chores = ThreadPoolExecutor(1, "checkpoint-chores")
        self._not_removed: list[str] = []
        """Why older checkpoints could not be removed."""
        self._copy: Candidate | None = None
        """Where the run was restored from memory: the same checkpoint on disk."""
        self._committed: Manifest | None = None
        """Of the newest checkpoint that is on disk; after a restart, of the one that was loaded from where checkpoints
        lie in the end."""

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
        self.slots.reserve(plans, files, restored.folder if restored else None)
        for step in [step for step in self._known if not restored or step > restored.step]:
            del self._known[step]  # it was refused, and must not count as one of those that are kept
        if restored and restored.candidate.tier == ("disk" if self.store.is_local else "store"):
            self._committed = restored.candidate.manifest
        elif restored and self.store.is_local:
            self._copy = self.finder.copy_on_disk(restored)
        self._remove_half_written()
        threads = max(1, min(4, len(os.sched_getaffinity(0)) // self.ranks.local_world))
        # One rank writes index and state: another machine has them by its copy, or is sent them.
        self._writer = Writer(index if self.ranks.rank == 0 else None, self.slots.copies, threads)
        estimate = sum(plan.bytes for plan in plans) / _BYTES_PER_SECOND
        self.timetable = Timetable(self.config, self.ranks.world, estimate, in_memory=self.slots.folder is not None)

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
        return self.uploads.finished

    def commit_upload(self) -> None:
        """Goes on with the upload under way, whose present part every rank has finished. Every rank calls it
        together."""
        self.uploads.commit()

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
        if durable and self._copy is not None and step == self._copy.manifest.step:
            self._adopt(self._copy)
        if not (durable and self._committed is not None and step == self._committed.step):
            slot = self.slots.next()
            disk = self.disk / step_folder(step) if durable else None
            self._saving = Saving(step, slot, disk, began, bits_per_byte=bits_per_byte)
            self._writer.start(self._saving, encode if self.ranks.rank == 0 else None)
            self.timetable.saved("durable" if durable else "memory")
            self._saving.stall = time.monotonic() - began
        if wait:
            self.commit(wait=True)
            self._drain()
        return True

    def _adopt(self, copy: Candidate) -> None:
        """Takes a checkpoint on disk for the one that is to be written, if it is still what was written: a rewrite in
        its place would lose it where the disk is full, or the process is killed."""
        self._copy = None
        mine = copy.manifest.files[self.ranks.rank :: self.ranks.world]
        folder = Path(copy.folders[self.machines.of_rank[0]])
        try:
            wrong = next((entry.path for entry in mine if sha256_file(folder / entry.path) != entry.sha256), "")
        except OSError as error:
            wrong = str(error)
        if not self.ranks.first_message(wrong):
            self._committed = copy.manifest

    def _remove_half_written(self) -> None:
        """Removes what attempts that were killed in a save left on disk and in the store. Every rank waits for it."""
        reason = ""
        try:
            if self.machines.is_leader and (self.ranks.rank == 0 or not self.store.is_local):
                remove_half_written(self.disk)
            if self.ranks.rank == 0 and not self.store.is_local:
                for name in half_written(self.store, self.folder):
                    self.store.remove(name)
        except (OSError, StoreError) as error:
            reason = str(error)
        if reason := self.ranks.first_message(reason):
            self.emit("warning", message=f"training: a half-written checkpoint cannot be removed, and stays: {reason}")

    @property
    def places(self) -> str:
        """Where this run's checkpoints are, for messages: all of it is looked at by the next start."""
        memory = [f"the machine's memory ({self.slots.folder}, removed whole)"] if self.slots.folder else []
        disk = [] if self.store.is_local else [str(self.disk)]
        return " and in ".join([self.where, *disk, *memory])

    def weight_files(self) -> list[dict[str, Any]]:
        """The files with weights of the newest committed checkpoint, and its index, as entries relative to the run."""
        assert self._committed is not None, "nothing is committed yet"
        folder = f"{self.folder.rsplit('/', 1)[-1]}/{step_folder(self._committed.step)}"
        return [
            {"path": f"{folder}/{entry.path}", "bytes": entry.bytes, "sha256": entry.sha256}
            for entry in self._committed.files
            if is_for_export(entry.path)
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
        self._report_chores()
        began = time.monotonic()
        saving.future.result()
        files = [entry.model_dump(mode="json", exclude_none=True) for entry in saving.files]
        parts = self.ranks.all_gather_json([files, saving.disk_error, saving.memory_error])
        entries = [CheckpointFile.model_validate(entry) for part, _, _ in parts for entry in part]
        error = next((f"rank {rank} could not write it: {text}" for rank, (_, text, _) in enumerate(parts) if text), "")
        saving.memory_error = next((text for _, _, text in parts if text), "")
        if saving.slot.folder is not None:
            self._commit_in_memory(saving, saving.slot.folder, entries)
        if saving.disk is not None and not error:
            manifest = self._manifest(saving, entries, "sha256")
            content = dump_manifest(manifest)
            error = self.ranks.first_message(self._write_manifest(saving, content))
            if not error:
                self._committed = manifest
                self._after_commit(saving, content)
        if error and saving.disk is not None:
            self._discard(saving.disk)
        if not saving.memory_error or (saving.disk is not None and not error):
            self.slots.after_commit()
        now = time.monotonic()
        saving.stall += now - began
        kind = "memory" if saving.disk is None else "durable"
        # On a CPU the threads take their time from the training's, whose other threads wait for the one that lost it.
        taken = saving.cpu_seconds if self.ranks.device.type == "cpu" else 0.0
        self.timetable.measured(kind, saving.stall + taken)
        if error:
            location = self.store.where(f"{self.folder}/{step_folder(saving.step)}")
            message = f"checkpoint {location}: {error}"
            if wait:
                raise StoreError(message)
            self.emit("warning", message=f"{message}; the training goes on, and the one before it stays")
        elif saving.disk is not None or not saving.memory_error:
            self.emit(
                "checkpoint" if saving.disk is not None else "memory_checkpoint",
                step=saving.step,
                seconds=round(now - saving.began, 3),
                stall_seconds=round(saving.stall, 3),
            )

    def _commit_in_memory(self, saving: Saving, folder: Path, entries: list[CheckpointFile]) -> None:
        """Makes what is in a slot a checkpoint on every machine, or on none: the slot is then the next one to be
        written to again, and the one before it stays in the other."""
        reason = ""
        if self.machines.is_leader and not saving.memory_error:
            try:
                write_manifest(folder, dump_manifest(self._manifest(saving, entries, "xxh3")))
            except OSError as failure:
                reason = describe_failure(failure, folder)
        saving.memory_error = saving.memory_error or self.ranks.first_message(reason)
        if saving.memory_error:
            if self.machines.is_leader:
                (folder / MANIFEST).unlink(missing_ok=True)
            self.slots.take_back()
            self.emit("warning", message=f"no checkpoint in memory of step {saving.step}: {saving.memory_error}")

    def _discard(self, disk: Path) -> None:
        """Removes a checkpoint that could not be written: what there is of it may be what fills the disk."""
        if self.ranks.rank == 0 if self.store.is_local else self.machines.is_leader:
            shutil.rmtree(disk, ignore_errors=True)

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
                self._do(remove_superseded, self.store, self.folder, dict(self._known), self.config)
            forget_superseded(self._known, self.config)
        else:
            if self.machines.is_leader:
                self._do(thin_out, saving.disk, self.uploads.under_way)
            name = f"{self.folder}/{saving.disk.name}"
            files = [entry.path for entry in saving.files]
            self.uploads.add(Upload(saving.step, name, saving.disk, files, manifest, saving.bits_per_byte))

    def _do(self, chore: Callable[..., None], *arguments: Any) -> None:
        """Begins to remove what is superseded. What cannot be removed stays: no run ends for it."""

        def work() -> None:
            try:
                chore(*arguments)
            except (OSError, StoreError) as error:
                self._not_removed.append(str(error))

        self._chores.submit(work)

    def _report_chores(self) -> None:
        while self._not_removed:
            message = f"an older checkpoint could not be removed, and stays: {self._not_removed.pop()}"
            self.emit("warning", message=f"training: {message}")

    def _drain(self) -> None:
        """Waits until everything is where it belongs.

        Raises:
            StoreError: the newest checkpoint cannot be written to the store.
        """
        self.uploads.drain()
        self._chores.submit(lambda: None).result()  # it is the last in the queue
        self._report_chores()

    def abandon(self, *, commit: bool) -> None:
        """After an exception: one process alone commits what is under way, so that no thread writes after it.

        Several ranks cannot: the others may be gone. Their half-written checkpoint is not looked at again.

        Args:
            commit: False: what is under way may be what caused the exception, and is left half-written.
        """
        if self.ranks.alone:
            if commit:
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
        self.slots.close()


def write_manifest(folder: Path, content: bytes) -> None:
    """On this machine's disk or memory: the last file of a checkpoint, whole or not there."""
    make_private_folder(folder)
    aside = folder / f".{MANIFEST}.{secrets.token_hex(4)}"
    try:
        with aside.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(folder / MANIFEST)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
