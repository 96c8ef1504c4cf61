"""The contents of a store: one listing of everything, divided into artifact folders and other objects.

gc.py decides by it what can be deleted, verify.py what is to be hashed. A folder that cannot be listed is an error:
garbage collection must not take an unreadable folder for an empty one.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from stages.store.artifact import Artifact, load
from stages.store.errors import StoreError
from stages.store.manifest import MANIFEST
from stages.store.names import FOLDER
from stages.store.store import Store


@dataclass(frozen=True)
class StoredObject:
    """One object of the store."""

    name: str
    bytes: int
    changed: float
    """When it was last written, in seconds since the epoch."""


@dataclass(frozen=True)
class Folder:
    """An artifact's folder and all objects in it, finished or not."""

    name: str
    objects: tuple[StoredObject, ...]

    @property
    def kind(self) -> str:
        return self.name.partition("/")[0]

    @property
    def finished(self) -> bool:
        """True if it has a manifest."""
        return any(item.name == f"{self.name}/{MANIFEST}" for item in self.objects)

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.objects)

    @property
    def changed(self) -> float:
        """When anything in it was last written."""
        return max((item.changed for item in self.objects), default=0.0)

    def below(self, prefix: str) -> list[StoredObject]:
        """Its objects whose path inside the folder begins with `prefix`."""
        return [item for item in self.objects if item.name.startswith(f"{self.name}/{prefix}")]


@dataclass(frozen=True)
class Survey:
    """Everything in a store."""

    folders: dict[str, Folder]
    """Artifact folders by name, sorted."""
    others: tuple[StoredObject, ...]
    """Refs, records and all other objects."""

    def artifacts(self, store: Store) -> tuple[dict[str, Artifact], dict[str, str]]:
        """Finished artifacts by folder; and folders whose manifest cannot be read, with the reason."""
        found: dict[str, Artifact] = {}
        damaged: dict[str, str] = {}
        for folder in self.folders.values():
            if not folder.finished:
                continue
            try:
                artifact = load(store, folder.name)
            except StoreError as error:
                damaged[folder.name] = str(error)
                continue
            if artifact:  # else it was removed since it was listed
                found[folder.name] = artifact
        return found, damaged


def survey(store: Store, below: str = "") -> Survey:
    """Lists the store, or one folder of it.

    Raises:
        StoreError: a part of it cannot be listed.
    """
    folders: dict[str, list[StoredObject]] = defaultdict(list)
    others = []
    for item in sorted(_objects(store, below), key=lambda item: item.name):
        name = "/".join(item.name.split("/", 2)[:2])
        if item.name.count("/") >= 2 and FOLDER.fullmatch(name):
            folders[name].append(item)
        else:
            others.append(item)
    return Survey({name: Folder(name, tuple(items)) for name, items in folders.items()}, tuple(others))


def _objects(store: Store, below: str) -> Iterator[StoredObject]:
    if store.is_local:
        yield from _local_objects(store, below)
        return
    try:
        with store.translate_errors("list", below):
            found = store.fs.find(store.path(below), detail=True)
    except FileNotFoundError:
        return
    for path, info in found.items():
        yield StoredObject(path[len(store.root) + 1 :], int(info["size"] or 0), _changed(info))


def _local_objects(store: Store, below: str) -> Iterator[StoredObject]:
    """Like fsspec's `find`, which silently skips folders that it may not read."""

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # a folder removed while we list is fine
            raise StoreError(f"store: cannot list {error.filename}: {error.strerror}; check its permissions") from error

    for folder, _, names in os.walk(store.local_path(below), onerror=refuse):
        for name in names:
            path = os.path.join(folder, name)
            try:
                stat = os.lstat(path)
            except FileNotFoundError:
                continue
            yield StoredObject(path[len(store.root) + 1 :], stat.st_size, stat.st_mtime)


def _changed(info: dict[str, Any]) -> float:
    when = info.get("LastModified") or info.get("mtime") or info.get("updated") or info.get("created") or 0.0
    return when.timestamp() if isinstance(when, datetime) else float(when)
