"""What reaches what: refs and other records point at artifacts, and artifacts, by their inputs' digests, at others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from stages.store.artifact import Artifact
from stages.store.errors import StoreError
from stages.store.store import Store


class Root(NamedTuple):
    """What a ref, or another record, points at."""

    folder: str
    digest: str


class Roots(NamedTuple):
    """Roots by the name, in the store, of what points there."""

    found: dict[str, Root]
    broken: dict[str, str]
    """Those that cannot be read, with the reason."""

    def __or__(self, other: Roots) -> Roots:
        return Roots({**self.found, **other.found}, {**self.broken, **other.broken})

    def dangling(self, artifacts: Mapping[str, Artifact]) -> dict[str, str]:
        """Names of those that do not point at a finished artifact, and why."""
        found = dict(self.broken)
        for name, root in self.found.items():
            artifact = artifacts.get(root.folder)
            if artifact is None:
                found[name] = f"points at {root.folder}, where no artifact is"
            elif artifact.digest != root.digest:
                found[name] = f"points at {root.folder} as {root.digest[:12]}, which is {artifact.digest[:12]}"
        return found


def ref_roots(store: Store) -> Roots:
    """What every ref points at."""
    roots = Roots({}, {})
    for name in store.list("refs"):
        if name.rsplit("/", 1)[-1].startswith("."):
            continue
        try:
            record = store.read_json(name)
            roots.found[name] = Root(str(record["folder"]), str(record["digest"]))
        except FileNotFoundError:  # removed this moment
            continue
        except StoreError as error:
            roots.broken[name] = str(error)
        except (KeyError, TypeError):
            roots.broken[name] = "is not a ref: folder or digest is missing"
    return roots


class Graph:
    """Artifacts by folder, and what went into them."""

    def __init__(self, artifacts: Mapping[str, Artifact]):
        self._inputs = {name: list(artifact.manifest.inputs.values()) for name, artifact in artifacts.items()}
        self._holders: dict[str, list[str]] = {}
        for name, artifact in artifacts.items():
            self._holders.setdefault(artifact.digest, []).append(name)

    def holding(self, digests: Iterable[str]) -> list[str]:
        """Folders of the artifacts with these digests; all of them where different plans had equal results."""
        return [name for digest in digests for name in self._holders.get(digest, ())]

    def reach(self, folders: Iterable[str]) -> set[str]:
        """These folders, and all that went into them."""
        found: set[str] = set()
        ahead = list(folders)
        while ahead:
            name = ahead.pop()
            if name not in found:
                found.add(name)
                ahead += self.holding(self._inputs.get(name, ()))
        return found
