"""Reachability: refs and other records point at artifacts, which point, by their inputs' digests, at others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stages.store.artifact import Artifact
from stages.store.errors import StoreError
from stages.store.refs import read_record, ref_names
from stages.store.store import Store


class Root(NamedTuple):
    """The target of a ref or of another record."""

    folder: str
    digest: str


class Roots(NamedTuple):
    """Roots by the name, in the store, of the ref or record that points at them."""

    found: dict[str, Root]
    broken: dict[str, str]
    """Refs and records that cannot be read, with the reason."""

    def __or__(self, other: Roots) -> Roots:
        return Roots({**self.found, **other.found}, {**self.broken, **other.broken})

    def dangling(self, artifacts: Mapping[str, Artifact]) -> dict[str, str]:
        """Refs and records that do not point at a finished artifact, and why."""
        found = dict(self.broken)
        for name, root in self.found.items():
            artifact = artifacts.get(root.folder)
            if artifact is None:
                found[name] = f"points at {root.folder}, which holds no finished artifact"
            elif artifact.digest != root.digest:
                found[name] = f"points at {root.folder} as {root.digest[:12]}, which is {artifact.digest[:12]}"
        return found


def ref_roots(store: Store) -> Roots:
    """The targets of all refs."""
    roots = Roots({}, {})
    for name in ref_names(store):
        try:
            record = read_record(store, name)
            roots.found[name] = Root(record.folder, record.digest)
        except FileNotFoundError:  # removed since it was listed
            continue
        except StoreError as error:
            roots.broken[name] = str(error)
    return roots


class Graph:
    """Artifacts by folder, with the digests of their inputs."""

    def __init__(self, artifacts: Mapping[str, Artifact]):
        self._inputs = {name: list(artifact.manifest.inputs.values()) for name, artifact in artifacts.items()}
        self._holders: dict[str, list[str]] = {}
        for name, artifact in artifacts.items():
            self._holders.setdefault(artifact.digest, []).append(name)

    def folders_of(self, digests: Iterable[str]) -> list[str]:
        """Folders of the artifacts with these digests; all of them where different plans had equal results."""
        return [name for digest in digests for name in self._holders.get(digest, ())]

    def reach(self, folders: Iterable[str]) -> set[str]:
        """These folders, and the folders of all their direct and indirect inputs."""
        found: set[str] = set()
        pending = list(folders)
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self.folders_of(self._inputs.get(name, ()))
        return found
