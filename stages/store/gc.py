"""Garbage collection: deletes what no ref reaches, and nothing else.

*Reachable* is what a ref or the deployment record points at, with all its direct and indirect inputs, by the digests in
the manifests (listings of source files are no artifacts and have no folder). Also retained are:

- running work: a folder whose lease is alive, and the inputs that its first event names. If that event names none, all
  finished artifacts are retained until the work is done: it might read any of them.
- unfinished work (no manifest, no live lease), for a grace period: a restart resumes it, a training run from its last
  checkpoint. Its inputs are retained as long. A folder without any event has nothing to resume and is deleted at once.
- on request, artifacts that were finished recently.

The newest folders are deleted first, so that an interrupted collection leaves no artifact without its inputs. Each
folder is removed under its lease, so that nobody writes there meanwhile: its manifests first (a folder without one is
no artifact, a checkpoint without one no checkpoint), then its events, then the rest. What is left if the collector is
killed does not look complete, and is deleted the next time: its last event says that it was finished, or it has none.

A run may find an artifact cached at the moment at which it is chosen here for deletion. The run sets a ref to it at
once, and refs are read again after the manifest has been removed; the manifest is put back if a ref points there by
now. If the ref is set later still, the run's next stage fails because the artifact is missing, and the run, started
again, builds it anew. A partial artifact is never taken for a complete one.
"""

from __future__ import annotations

import errno
import json
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import Any

from stages.store.artifact import SCRATCH, Artifact, load
from stages.store.errors import LeaseHeldError, StoreError
from stages.store.lease import STALE_SECONDS, Lease, lease_numbers
from stages.store.manifest import MANIFEST
from stages.store.names import FOLDER
from stages.store.reach import Graph, Root, Roots, ref_roots
from stages.store.store import Store
from stages.store.survey import Folder, StoredObject, Survey, survey

DAY = 86400.0
UNFINISHED_SECONDS = 7 * DAY
"""Unfinished work that nobody resumed for so long is deleted."""
TEMPORARY_FILE_SECONDS = 3600.0
"""A temporary file is renamed within moments; an older one belongs to a dead writer."""

HALF_WRITTEN = "partly written files of a dead writer"

_TEMPORARY = re.compile(r"\.[^/]+\.\d+-[0-9a-f]{8}\.tmp")
_FORWARDED = "forwarded/"
"""Saved offsets of event forwarders, `forwarded/{folder with dashes}.json`: a folder's state that lies outside it."""
_FORWARDED_NAME = re.compile(r"forwarded/([A-Za-z][A-Za-z0-9_-]*)-([0-9a-f]{16}(?:-[0-9a-f]{8})?)\..+")


@dataclass(frozen=True)
class Item:
    """Something to delete."""

    kind: str
    id: str
    """`kind/` and the first digits of an artifact's digest; for anything else its name."""
    name: str
    """Folder or object in the store."""
    bytes: int
    changed: float
    """When it was finished, or last written, in seconds since the epoch."""
    why: str
    digest: str = ""
    """Of finished artifacts."""
    objects: tuple[str, ...] = ()
    """The objects to delete in a folder that is otherwise retained; empty: the whole folder."""


@dataclass(frozen=True)
class Kept:
    """A folder that is retained."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Collection:
    """What is deleted and what is retained."""

    to_delete: tuple[Item, ...]
    """In the order of deletion."""
    kept: tuple[Kept, ...]


def _no_roots() -> Roots:
    return Roots({}, {})


def plan_collection(
    store: Store,
    more_roots: Callable[[], Roots] = _no_roots,
    *,
    unfinished_after: float = UNFINISHED_SECONDS,
    keep_newer: float = 0.0,
    now: float | None = None,
) -> Collection:
    """Decides what is to be deleted; deletes nothing.

    Args:
        more_roots: roots besides the refs: the deployment record.
        unfinished_after: seconds after which unfinished work that nobody resumed is deleted.
        keep_newer: seconds for which a finished artifact is retained whether it is reachable or not.
        now: the current time in seconds since the epoch.

    Raises:
        StoreError: a ref or record points at a missing artifact, or a manifest is damaged, so that it is unknown what
            is reachable through it; or the store cannot be read.
    """
    now = time.time() if now is None else now
    roots = ref_roots(store) | more_roots()  # before the listing, so that their targets must be in it
    contents = survey(store)
    artifacts, damaged = contents.artifacts(store)
    _refuse_broken(store, roots, artifacts, damaged)
    graph = Graph(artifacts)
    reached = graph.reach(root.folder for root in roots.found.values())
    why: dict[str, str] = dict.fromkeys(reached, "reached by a ref")
    to_delete: list[Item] = []
    unknown_reader = ""
    for folder in contents.folders.values():
        alive = _alive(store, folder, now)
        reads = None if folder.finished else _read_inputs(store, folder)
        if alive:
            why.setdefault(folder.name, "being written")
            if not folder.finished and reads is None:
                unknown_reader = folder.name
        elif not folder.finished:
            reason = _expired(store, folder, now, unfinished_after)
            if reason:
                to_delete.append(Item(folder.kind, folder.name, folder.name, folder.bytes, folder.changed, reason))
                continue
            why[folder.name] = "unfinished: a run may resume it"
        if reads:
            for name in graph.reach(graph.folders_of(reads.values())):
                why.setdefault(name, "read by unfinished work")
    for name, artifact in artifacts.items():
        finished = artifact.manifest.finished.timestamp()
        if unknown_reader:
            why.setdefault(name, f"{unknown_reader} is being built and does not name its inputs")
        elif finished >= now:
            why.setdefault(name, "finished this moment: its ref is set next")
        elif now - finished < keep_newer:
            for part in graph.reach([name]):
                why.setdefault(part, "finished recently, or an input of what was")
    for name, artifact in artifacts.items():
        if name not in why:
            folder, finished = contents.folders[name], artifact.manifest.finished.timestamp()
            item = Item(folder.kind, artifact.id, name, folder.bytes, finished, "no ref reaches it", artifact.digest)
            to_delete.append(item)
    to_delete.sort(key=lambda item: (not item.digest, -item.changed))
    kept = [contents.folders[name] for name in sorted(why) if name in contents.folders]
    for folder in kept:
        if not _alive(store, folder, now):
            to_delete += _leftovers(folder, now)
    to_delete += _orphans(contents, now)
    return Collection(tuple(to_delete), tuple(Kept(folder.name, folder.bytes, why[folder.name]) for folder in kept))


def collect(store: Store, plan: Collection, more_roots: Callable[[], Roots] = _no_roots) -> Iterator[tuple[Item, str]]:
    """Deletes the plan's items one by one; yields each with the reason why it was skipped, or "".

    Raises:
        StoreError: the store cannot be read or written.
    """
    for item in plan.to_delete:
        if not FOLDER.fullmatch(item.name):
            store.remove(item.name)
            yield item, ""
            continue
        try:
            yield item, _remove(store, item, lambda: (ref_roots(store) | more_roots()).found.values())
        except LeaseHeldError as error:
            yield item, str(error)


def _refuse_broken(store: Store, roots: Roots, artifacts: Mapping[str, Artifact], damaged: Mapping[str, str]) -> None:
    """Refuses broken refs and damaged manifests: anything might be reachable through them."""
    wrong = [f"{store.where(name)} {reason}" for name, reason in roots.dangling(artifacts).items()]
    wrong += list(damaged.values())
    if wrong:
        raise StoreError(
            f"nothing was deleted, because it is unknown what is reachable through these: {'; '.join(wrong)}. Run the "
            "recipe again, or remove what is broken; `headwater verify` reports more"
        )


def _alive(store: Store, folder: Folder, now: float) -> bool:
    """Whether a process writes there. In doubt yes: machines' clocks differ, and the next collection can delete it."""
    if not lease_numbers([item.name for item in folder.objects], folder.name):
        return False
    holder = Lease(store, folder.name).holder()
    beats = [item.changed for item in folder.below("lease-")]
    return holder is not None and not holder.is_known_dead and now - max(holder.heartbeat, *beats) <= 5 * STALE_SECONDS


def _read_inputs(store: Store, folder: Folder) -> dict[str, str] | None:
    """Digests of unfinished work's inputs, by role, from its first event; None if that does not name them."""
    events = [item.name for item in folder.below("events")]
    if not events:
        return None
    try:
        with store.open(events[0]) as stream:
            inputs = json.loads(stream.readline()).get("inputs")
    except (ValueError, FileNotFoundError):
        return None
    return {str(role): str(digest) for role, digest in inputs.items()} if isinstance(inputs, dict) else None


def _expired(store: Store, folder: Folder, now: float, after: float) -> str:
    """Why an unfinished folder is deleted; empty if it is retained."""
    if not folder.below("events"):
        return "without any event: there is nothing to resume"
    if _last_event(store, folder).get("type") == "finished":
        return "an earlier collection was interrupted here"
    if now - folder.changed > after:
        return f"unfinished, and nobody resumed it for {(now - folder.changed) / DAY:.1f} days"
    return ""


def _last_event(store: Store, folder: Folder) -> dict[str, Any]:
    last = folder.below("events")[-1]
    try:
        with store.open(last.name) as stream:
            stream.seek(max(0, last.bytes - (1 << 16)))
            event = json.loads(stream.read().splitlines()[-1])
    except (ValueError, IndexError, FileNotFoundError):  # its last line was being written
        return {}
    return event if isinstance(event, dict) else {}


def _leftovers(folder: Folder, now: float) -> list[Item]:
    """Partly written files in a folder that is retained and that nobody writes to."""
    scratch = folder.below(f"{SCRATCH}/")
    temporary = [item for item in folder.objects if _is_old_temporary(item, now) and item not in scratch]
    if not scratch and not temporary:
        return []
    found = [*scratch, *temporary]
    names = [f"{folder.name}/{SCRATCH}"] if scratch else []
    names += [item.name for item in temporary]
    changed, size = max(item.changed for item in found), sum(item.bytes for item in found)
    return [Item(folder.kind, names[0], folder.name, size, changed, HALF_WRITTEN, objects=tuple(names))]


def _orphans(contents: Survey, now: float) -> list[Item]:
    """Objects outside artifact folders that belong to nothing any more."""
    found = []
    for item in contents.others:
        of = _FORWARDED_NAME.fullmatch(item.name)
        if _is_old_temporary(item, now):
            reason = HALF_WRITTEN
        elif of and f"{of[1]}/{of[2]}" not in contents.folders and now - item.changed > TEMPORARY_FILE_SECONDS:
            reason = "saved event offset of a deleted folder"
        else:
            continue
        found.append(Item(item.name.partition("/")[0], item.name, item.name, item.bytes, item.changed, reason))
    return found


def _is_old_temporary(item: StoredObject, now: float) -> bool:
    return bool(_TEMPORARY.fullmatch(item.name.rsplit("/", 1)[-1])) and now - item.changed > TEMPORARY_FILE_SECONDS


def _remove(store: Store, item: Item, roots: Callable[[], Iterable[Root]]) -> str:
    """Deletes a folder, or the item's objects in it, under its lease; returns why it was skipped, or ""."""
    lease = Lease(store, item.name)
    with ExitStack() as held:
        manifest_removed = False
        try:
            held.enter_context(lease)
        except StoreError as error:
            if isinstance(error, LeaseHeldError) or not _is_full(error) or not item.digest:
                raise
            # A full disk, when a collection is needed most, has no room for a lease; removing the manifest makes some.
            skipped = _remove_manifest(store, item, roots)
            if skipped:
                return skipped
            manifest_removed = True
            held.enter_context(lease)
        if item.objects:
            for name in item.objects:
                lease.confirm()
                store.remove(name)
            return ""
        skipped = "" if manifest_removed else _remove_manifest(store, item, roots, lease)
        if not skipped:
            skipped = _empty(store, item, lease)
    if store.is_local:
        with suppress(OSError):  # it is not empty
            os.rmdir(store.local_path(item.name))
    return skipped


def _empty(store: Store, item: Item, lease: Lease) -> str:
    """Deletes everything in a folder whose lease we hold, except the lease; and its saved event offsets."""
    inside = survey(store, item.name).folders.get(item.name, Folder(item.name, ()))
    objects = [each for each in inside.objects if not each.name.startswith(f"{item.name}/lease-")]
    if not item.digest and max((each.changed for each in objects), default=0.0) > item.changed:
        return "a run has resumed it since"
    for each in sorted(objects, key=lambda each: _deletion_order(each.name)):
        lease.confirm()  # a collector that was suspended must not delete what has been built there since
        store.remove(each.name)
    state = f"{_FORWARDED}{item.name.replace('/', '-')}."
    for name in store.list(_FORWARDED.rstrip("/")):
        if name.startswith(state):
            store.remove(name)
    if store.is_local:
        for path, _, _ in os.walk(store.local_path(item.name), topdown=False):
            with suppress(OSError):  # the outermost still holds the lease
                os.rmdir(path)
    return ""


def _remove_manifest(store: Store, item: Item, roots: Callable[[], Iterable[Root]], lease: Lease | None = None) -> str:
    """Turns a finished artifact into an unfinished folder; returns why it was skipped, or "".

    Refs are read after the manifest is removed: a run that set one before finds the artifact again in a moment, and one
    that sets it later finds no manifest.
    """
    artifact = load(store, item.name)
    if (artifact.digest if artifact else "") != item.digest:
        return "it has been rebuilt or removed since"
    referenced = "a ref points at it by now"
    if any(root.folder == item.name for root in roots()):
        return referenced
    if artifact:
        name = f"{item.name}/{MANIFEST}"
        data = store.read(name)
        if lease:
            lease.confirm()
        store.remove(name)
        if any(root.folder == item.name for root in roots()):
            store.create(name, data)
            return referenced
    return ""


def _deletion_order(name: str) -> tuple[int, int, str]:
    """Order of deletion: manifests, the artifact's own before those of its parts; then events; then the rest."""
    path = name.split("/", 2)[-1]
    rank = 0 if path.rsplit("/", 1)[-1] == MANIFEST else 1 if path.startswith("events") else 2
    return rank, path.count("/"), path


def _is_full(error: StoreError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
