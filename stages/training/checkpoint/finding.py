"""The checkpoints that exist in memory, on disk and in the store, and which of them is whole on all machines."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from stages.store.errors import StoreError
from stages.store.store import Store
from stages.training.checkpoint.format import MANIFEST, MAX_RECORD_BYTES, Manifest, OldFormatError, parse_manifest
from stages.training.checkpoint.memory_tier import SLOTS

Tier = Literal["memory", "disk", "store"]
TIERS: tuple[Tier, ...] = ("memory", "disk", "store")
"""Fastest first."""
_STEP = re.compile(r"step-[0-9]{8,18}")


def step_folder(step: int) -> str:
    """Name of a checkpoint's folder on disk and in a store."""
    return f"step-{step:08}"


def is_step_folder(name: str) -> bool:
    return bool(_STEP.fullmatch(name))


def step_of(name: str) -> int:
    """The step in the name of a checkpoint's folder, or at the end of its path."""
    return int(name.rpartition("-")[2])


def committed_checkpoints(store: Store, folder: str) -> list[str]:
    """Names of the committed checkpoints below a run's `checkpoints` folder, oldest first: `{folder}/step-{n:08}`."""
    start, end = f"{folder}/", f"/{MANIFEST}"
    names = [name.removesuffix(end) for name in store.list(folder) if name.endswith(end)]
    return sorted((name for name in names if is_step_folder(name.removeprefix(start))), key=step_of)


def half_written(store: Store, folder: str) -> list[str]:
    """Names of the folders below a run's `checkpoints` folder in a store that have no manifest."""
    whole = set(committed_checkpoints(store, folder))
    return [name for name in store.folders(folder) if is_step_folder(name.rpartition("/")[2]) and name not in whole]


@dataclass(frozen=True)
class Candidate:
    """A checkpoint in one tier that is whole, as far as names and sizes tell."""

    tier: Tier
    manifest: Manifest
    folders: dict[int, str]
    """Where it is on each machine that has a part of it."""
    present: dict[int, frozenset[str]]
    """The files that each machine has; in the store, all."""

    @property
    def name(self) -> str:
        """For messages: `memory/step-00000100`; without the tier for disk and store, whose folders are called so."""
        folder = step_folder(self.manifest.step)
        return f"memory/{folder}" if self.tier == "memory" else folder


@dataclass(frozen=True)
class Refusal:
    """A checkpoint, or a file of one, that is passed over."""

    file: str
    reason: str


def list_machine(memory: Path | None, disk: Path) -> list[dict[str, Any]]:
    """What this machine has, as JSON values for the other ranks: each checkpoint's tier, folder, manifest, and the
    files that are there with the right size; or the refusal of a manifest.

    Args:
        memory: the run's folder in memory.
        disk: its folder on disk.
    """
    found = []
    if memory is not None:
        found += [("memory", memory / slot, f"memory/{slot}") for slot in SLOTS]
    if disk.is_dir():
        found += [("disk", path, path.name) for path in sorted(disk.iterdir()) if is_step_folder(path.name)]
    return [entry for tier, folder, name in found for entry in _list_folder(tier, folder, name)]


def _list_folder(tier: str, folder: Path, name: str) -> Iterator[dict[str, Any]]:
    if folder.is_symlink():  # what it leads to is not this run's
        yield {"refused": name, "reason": "it is a link", "old": False}
        return
    try:
        content = _read_manifest(folder / MANIFEST)
    except (FileNotFoundError, NotADirectoryError):  # half-written
        return
    except OSError as error:  # it may be a good one: nothing older must be taken for the newest without a word
        reason = f"it cannot be read: {error.strerror or error}"
        yield {"refused": f"{name}/{MANIFEST}", "reason": reason, "old": False}
        return
    try:
        manifest = parse_manifest(content, str(folder / MANIFEST))
    except StoreError as error:
        yield {"refused": f"{name}/{MANIFEST}", "reason": str(error), "old": isinstance(error, OldFormatError)}
        return
    if tier == "disk" and name != step_folder(manifest.step):
        yield {"refused": f"{name}/{MANIFEST}", "reason": f"it is of step {manifest.step}", "old": False}
        return
    present = [entry.path for entry in manifest.files if _has(folder / entry.path, entry.bytes)]
    yield {"tier": tier, "folder": str(folder), "manifest": content.decode(), "present": present}


def _read_manifest(path: Path) -> bytes:
    """What stands in the manifest's place, neither through a link nor from a pipe, and not much more than is allowed.

    Raises:
        OSError: there is no such file, it cannot be read, or it is a link, a folder or a pipe.
    """
    if path.is_symlink():
        raise OSError(errno.ELOOP, "it is a link")
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "it is not a file")
        content = b""
        while len(content) <= MAX_RECORD_BYTES and (part := os.read(handle, 1 << 20)):
            content += part
        return content
    finally:
        os.close(handle)


def _has(path: Path, size: int) -> bool:
    try:
        found = path.lstat()
    except OSError:
        return False
    return found.st_size == size and stat.S_ISREG(found.st_mode)


def list_store(store: Store, folder: str) -> list[dict[str, Any]]:
    """What an object store has, in the same form."""
    entries: list[dict[str, Any]] = []
    for name in committed_checkpoints(store, folder):
        where = f"{name.rsplit('/', 1)[1]}/{MANIFEST}"
        try:
            if (store.size(f"{name}/{MANIFEST}") or 0) > MAX_RECORD_BYTES:
                raise StoreError(f"it has more than {MAX_RECORD_BYTES} bytes")
            content = store.read(f"{name}/{MANIFEST}")
            manifest = parse_manifest(content, store.where(f"{name}/{MANIFEST}"))
            if name != f"{folder}/{step_folder(manifest.step)}":
                raise StoreError(f"it is of step {manifest.step}")
        except FileNotFoundError:  # removed since it was listed
            continue
        except StoreError as error:
            entries.append({"refused": where, "reason": str(error), "old": isinstance(error, OldFormatError)})
            continue
        present = [entry.path for entry in manifest.files]
        entries.append({"tier": "store", "folder": name, "manifest": content.decode(), "present": present})
    return entries


def choose(listings: Iterable[tuple[int, list[dict[str, Any]]]]) -> tuple[list[Candidate], list[Refusal], str]:
    """The whole checkpoints, newest first and memory before disk before store; what is passed over; and the message of
    a checkpoint of an older format, if there is one.

    Args:
        listings: of each machine, with its number; the store's with that of the first.
    """
    groups: dict[tuple[str, int, str], dict[str, Any]] = {}
    refusals, old = [], ""
    for machine, entries in listings:
        for entry in entries:
            if "refused" in entry:
                refusals.append(Refusal(entry["refused"], entry["reason"]))
                old = old or (entry["reason"] if entry["old"] else "")
                continue
            manifest = parse_manifest(entry["manifest"].encode(), entry["folder"])
            group = groups.setdefault(
                (entry["tier"], manifest.step, manifest.attempt), {"manifest": manifest, "folders": {}, "present": {}}
            )
            if manifest.files != group["manifest"].files:
                refusals.append(Refusal(f"{entry['folder']}/{MANIFEST}", "machines disagree about it"))
                continue
            group["folders"][machine] = entry["folder"]
            group["present"][machine] = frozenset(entry["present"])
    candidates = []
    for (tier, _, _), group in groups.items():
        candidate = Candidate(tier, group["manifest"], group["folders"], group["present"])  # type: ignore[arg-type]
        missing = {entry.path for entry in candidate.manifest.files}.difference(*candidate.present.values())
        if missing:
            refusals += [
                Refusal(f"{candidate.name}/{path}", "missing, or of another size") for path in sorted(missing)[:4]
            ]
        else:
            candidates.append(candidate)
    candidates.sort(key=lambda found: (-found.manifest.step, TIERS.index(found.tier)))
    return candidates, refusals, old


def dump_manifest(manifest: Manifest) -> bytes:
    """A manifest's content."""
    return json.dumps(manifest.model_dump(mode="json", exclude_none=True), indent=1).encode()
