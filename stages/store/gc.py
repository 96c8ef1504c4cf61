"""Garbage collection: what no ref reaches goes, and nothing else.

*Reached* is what a ref or the deployment record points at, and whatever went into that, by the manifests' input
digests, back to the sources (listings of source files are no artifacts and have no folder). Beside it stay:

- work under way: a folder whose lease is alive, and what its first event says it reads. Where that does not say,
  every finished artifact stays until the work is done: any of them might be read.
- unfinished work (no manifest, no live lease), for a time of grace: a restart goes on with it, from a training run's
  last checkpoint. What it reads stays as long. A folder without any event holds nothing to go on with and goes at once.
- on request, artifacts that were finished a short while ago.

What goes is taken newest first, so that an interrupted collection leaves no artifact without its inputs. Each folder
is removed under its lease, so that nobody writes there meanwhile: its manifests first (a folder without one is no
artifact, a checkpoint without one no checkpoint), then its events, then the rest. Whatever is left when the collector
is killed does not look whole, and goes the next time: its last event still says that it was finished, or it has none.

A run may find an artifact there at the moment at which it is chosen here. The run points a ref at it at once, and refs
are read again when the manifest is out of the way, which is put back if one points there by now. Should the ref come
later still, the run's next stage says that the artifact is missing, and the run, started again, makes it anew.
Nothing half is ever taken for whole.
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
from stages.store.reach import Graph, Root, Roots, ref_roots
from stages.store.store import Store
from stages.store.survey import FOLDER, Folder, StoredObject, Survey, survey

DAY = 86400.0
UNFINISHED_SECONDS = 7 * DAY
"""Unfinished work that nobody went on with for so long goes."""
ASIDE_SECONDS = 3600.0
"""A file written aside is renamed within moments; one that is older belongs to a writer that is gone."""

HALF_WRITTEN = "half-written files of a writer that is gone"

_ASIDE = re.compile(r"\.[^/]+\.\d+-[0-9a-f]{8}\.tmp")
_FORWARDED = "forwarded/"
"""Saved offsets of event forwarders, `forwarded/{folder with dashes}.json`: state of a folder that lies outside it."""
_FORWARDED_NAME = re.compile(r"forwarded/([A-Za-z][A-Za-z0-9_-]*)-([0-9a-f]{16}(?:-[0-9a-f]{8})?)\..+")


@dataclass(frozen=True)
class Item:
    """Something that goes."""

    kind: str
    id: str
    """`kind/` and the first digits of the digest; for what is no artifact its name."""
    name: str
    """Folder or object in the store."""
    bytes: int
    changed: float
    """When it was finished, or last written, in seconds since 1970."""
    why: str
    digest: str = ""
    """Of finished artifacts."""
    objects: tuple[str, ...] = ()
    """What goes of a folder that stays; empty: the whole."""


@dataclass(frozen=True)
class Kept:
    """A folder that stays."""

    name: str
    bytes: int
    why: str


@dataclass(frozen=True)
class Collection:
    """What goes and what stays."""

    to_delete: tuple[Item, ...]
    """In the order of removal."""
    kept: tuple[Kept, ...]


def _none() -> Roots:
    return Roots({}, {})


def plan_collection(
    store: Store,
    more_roots: Callable[[], Roots] = _none,
    *,
    unfinished_after: float = UNFINISHED_SECONDS,
    keep_newer: float = 0.0,
    now: float | None = None,
) -> Collection:
    """Decides what goes; removes nothing.

    Args:
        more_roots: what is reached beside the refs: the deployment record.
        unfinished_after: seconds after which unfinished work that nobody went on with goes.
        keep_newer: seconds for which a finished artifact stays whether it is reached or not.
        now: the time of day in seconds since 1970.

    Raises:
        StoreError: a ref, or a record, points at nothing, or a manifest is damaged, so that what is reached through it
            cannot be known; or the store cannot be read.
    """
    now = time.time() if now is None else now
    roots = ref_roots(store) | more_roots()  # before the listing, so that what they point at must be in it
    there = survey(store)
    artifacts, damaged = there.artifacts(store)
    _refuse_unknown(store, roots, artifacts, damaged)
    graph = Graph(artifacts)
    reached = graph.reach(root.folder for root in roots.found.values())
    why: dict[str, str] = dict.fromkeys(reached, "reached by a ref")
    to_delete: list[Item] = []
    unknown_reader = ""
    for folder in there.folders.values():
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
            why[folder.name] = "unfinished: a run may go on with it"
        if reads:
            for name in graph.reach(graph.holding(reads.values())):
                why.setdefault(name, "read by unfinished work")
    for name, artifact in artifacts.items():
        finished = artifact.manifest.finished.timestamp()
        if unknown_reader:
            why.setdefault(name, f"{unknown_reader} is being made and does not say what it reads")
        elif finished >= now:
            why.setdefault(name, "made this moment: its ref comes next")
        elif now - finished < keep_newer:
            for part in graph.reach([name]):
                why.setdefault(part, "finished a short while ago, or part of what was")
    for name, artifact in artifacts.items():
        if name not in why:
            folder, finished = there.folders[name], artifact.manifest.finished.timestamp()
            item = Item(folder.kind, artifact.id, name, folder.bytes, finished, "no ref reaches it", artifact.digest)
            to_delete.append(item)
    to_delete.sort(key=lambda item: (not item.digest, -item.changed))
    kept = [there.folders[name] for name in sorted(why) if name in there.folders]
    for folder in kept:
        if not _alive(store, folder, now):
            to_delete += _leftovers(folder, now)
    to_delete += _orphans(there, now)
    return Collection(tuple(to_delete), tuple(Kept(folder.name, folder.bytes, why[folder.name]) for folder in kept))


def collect(store: Store, plan: Collection, more_roots: Callable[[], Roots] = _none) -> Iterator[tuple[Item, str]]:
    """Removes what the plan says, one thing after another; yields each with why it was left after all, or nothing.

    Raises:
        StoreError: the store refuses.
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


def _refuse_unknown(store: Store, roots: Roots, artifacts: Mapping[str, Artifact], damaged: Mapping[str, str]) -> None:
    """What points at nothing, and what cannot be read, may reach anything."""
    wrong = [f"{store.where(name)} {reason}" for name, reason in roots.dangling(artifacts).items()]
    wrong += list(damaged.values())
    if wrong:
        raise StoreError(
            f"nothing was removed, since what these reach cannot be known: {'; '.join(wrong)}. Run the recipe "
            "again, or remove what is broken; `headwater verify` tells more"
        )


def _alive(store: Store, folder: Folder, now: float) -> bool:
    """Whether somebody writes there. In doubt yes: clocks of machines differ, and what stays can go the next time."""
    if not lease_numbers([item.name for item in folder.objects], folder.name):
        return False
    holder = Lease(store, folder.name).holder()
    beats = [item.changed for item in folder.below("lease-")]
    return holder is not None and not holder.surely_dead and now - max(holder.beat, *beats) <= 5 * STALE_SECONDS


def _read_inputs(store: Store, folder: Folder) -> dict[str, str] | None:
    """What unfinished work reads, role to digest, by its first event; None if that does not say."""
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
    """Why an unfinished folder goes; empty if it stays."""
    if not folder.below("events"):
        return "without any event: there is nothing to go on with"
    if _last_event(store, folder).get("type") == "finished":
        return "an earlier collection was interrupted here"
    if now - folder.changed > after:
        return f"unfinished, and nobody went on with it for {(now - folder.changed) / DAY:.1f} days"
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
    """Half-written files in a folder that stays and that nobody writes to."""
    scratch = folder.below(f"{SCRATCH}/")
    asides = [item for item in folder.objects if _is_old_aside(item, now) and item not in scratch]
    if not scratch and not asides:
        return []
    found = [*scratch, *asides]
    names = [f"{folder.name}/{SCRATCH}"] if scratch else []
    names += [item.name for item in asides]
    changed, size = max(item.changed for item in found), sum(item.bytes for item in found)
    return [Item(folder.kind, names[0], folder.name, size, changed, HALF_WRITTEN, objects=tuple(names))]


def _orphans(there: Survey, now: float) -> list[Item]:
    """What lies outside artifact folders and belongs to nobody any more."""
    found = []
    for item in there.others:
        of = _FORWARDED_NAME.fullmatch(item.name)
        if _is_old_aside(item, now):
            reason = HALF_WRITTEN
        elif of and f"{of[1]}/{of[2]}" not in there.folders and now - item.changed > ASIDE_SECONDS:
            reason = "saved offset of a folder that is gone"
        else:
            continue
        found.append(Item(item.name.partition("/")[0], item.name, item.name, item.bytes, item.changed, reason))
    return found


def _is_old_aside(item: StoredObject, now: float) -> bool:
    return bool(_ASIDE.fullmatch(item.name.rsplit("/", 1)[-1])) and now - item.changed > ASIDE_SECONDS


def _remove(store: Store, item: Item, roots: Callable[[], Iterable[Root]]) -> str:
    """Removes a folder, or what is to go of it, under its lease; returns why it was left, or nothing."""
    with ExitStack() as held:
        taken = False
        try:
            held.enter_context(Lease(store, item.name))
        except StoreError as error:
            if isinstance(error, LeaseHeldError) or not _is_full(error) or not item.digest:
                raise
            # A full disk, which is when a collection is wanted most, has no room for a lease; the manifest makes some.
            left = _take_manifest(store, item, roots)
            if left:
                return left
            taken = True
            held.enter_context(Lease(store, item.name))
        if item.objects:
            for name in item.objects:
                store.remove(name)
            return ""
        left = "" if taken else _take_manifest(store, item, roots)
        if not left:
            left = _empty(store, item)
    if store.is_local:
        with suppress(OSError):  # something is in it
            os.rmdir(store.local_path(item.name))
    return left


def _empty(store: Store, item: Item) -> str:
    """Removes all that is in a folder whose lease we hold, but the lease; and what is kept for it elsewhere."""
    inside = survey(store, item.name).folders.get(item.name, Folder(item.name, ()))
    objects = [each for each in inside.objects if not each.name.startswith(f"{item.name}/lease-")]
    if not item.digest and max((each.changed for each in objects), default=0.0) > item.changed:
        return "somebody went on with it by now"
    for each in sorted(objects, key=lambda each: _order(each.name)):
        store.remove(each.name)
    state = f"{_FORWARDED}{item.name.replace('/', '-')}."
    for name in store.list(_FORWARDED.rstrip("/")):
        if name.startswith(state):
            store.remove(name)
    if store.is_local:
        for path, _, _ in os.walk(store.local_path(item.name), topdown=False):
            with suppress(OSError):  # the lease is in the outermost
                os.rmdir(path)
    return ""


def _take_manifest(store: Store, item: Item, roots: Callable[[], Iterable[Root]]) -> str:
    """Makes a finished artifact an unfinished folder; returns why it was left as it is, or nothing.

    Refs are read after the manifest is gone: a run that has set one before finds the artifact again in a moment, and
    one that sets it later can see that there is nothing.
    """
    artifact = load(store, item.name)
    if (artifact.digest if artifact else "") != item.digest:
        return "it was made anew, or removed, by now"
    pointed = "a ref points at it by now"
    if any(root.folder == item.name for root in roots()):
        return pointed
    if artifact:
        name = f"{item.name}/{MANIFEST}"
        data = store.read(name)
        store.remove(name)
        if any(root.folder == item.name for root in roots()):
            store.create(name, data)
            return pointed
    return ""


def _order(name: str) -> tuple[int, int, str]:
    """Manifests first, the artifact's own before those of its parts; then what a restart would go by; then the rest."""
    path = name.split("/", 2)[-1]
    rank = 0 if path.rsplit("/", 1)[-1] == MANIFEST else 1 if path.startswith("events") else 2
    return rank, path.count("/"), path


def _is_full(error: StoreError) -> bool:
    return isinstance(error.__cause__, OSError) and error.__cause__.errno in (errno.ENOSPC, errno.EDQUOT)
