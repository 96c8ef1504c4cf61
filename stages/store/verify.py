"""Verification: every byte is hashed again and compared with the manifests; whatever is damaged or missing is named.

Covered are the files of all artifacts, the manifests themselves (digest and fingerprint are computed anew), committed
checkpoints, which have manifests of their own, refs, and the inputs of what refs reach. Events, and what a manifest
only tells (counts, metrics, times), have no hash to be compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from stages.store.artifact import Artifact, named
from stages.store.errors import StoreError
from stages.store.manifest import MANIFEST, digest, fingerprint
from stages.store.reach import Graph, Roots
from stages.store.store import Store
from stages.store.survey import Folder, survey

READERS = 4
"""Files that are read at a time: hashing lets go of the interpreter's lock, and object stores answer in parallel."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Damage:
    """One thing that is not as it should be."""

    path: str
    """Absolute path or URL."""
    of: str
    """The artifact (`kind/digest`), checkpoint or ref that it belongs to."""
    problem: str
    remedy: str
    """What to do about it."""


@dataclass(frozen=True)
class Expected:
    """One file, and what it should be."""

    name: str
    bytes: int
    sha256: str
    of: str
    remedy: str
    manifest: str
    """Name of the manifest that says so. Where that is gone when the file is read, both were removed meanwhile."""


@dataclass
class Verification:
    """What is to be read, and what is wrong as far as can be told without reading it."""

    artifacts: int = 0
    checkpoints: int = 0
    files: list[Expected] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """All that is to be read."""
        return sum(item.bytes for item in self.files)


def plan_verification(store: Store, roots: Roots, start: str = "") -> Verification:
    """What is to be read to verify the whole store, or one artifact and what went into it.

    Args:
        roots: what refs and other records point at.
        start: a ref such as `biomed/champion`, or the start of a digest, `kind/digest` or fingerprint; empty: all.

    Raises:
        StoreError: there is no such artifact, or there are several; or the store cannot be listed.
    """
    there = survey(store)
    artifacts, broken = there.artifacts(store)
    graph, out = Graph(artifacts), Verification()
    ref = f"refs/{start.removeprefix('refs/')}"
    if ref in roots.found or ref in roots.broken:
        roots = Roots(
            {k: v for k, v in roots.found.items() if k == ref}, {k: v for k, v in roots.broken.items() if k == ref}
        )
        chosen = reached = graph.reach(root.folder for root in roots.found.values())
    elif start:
        roots = Roots({}, {})
        chosen = reached = graph.reach([named(store, artifacts.values(), start).folder])
    else:
        chosen, reached = set(there.folders), graph.reach(root.folder for root in roots.found.values())

    for name, reason in roots.dangling(artifacts).items():
        root = roots.found.get(name)
        if root is None or root.folder not in broken:  # the manifest is named below
            remedy = "run the recipe again, which points it anew, or remove it"
            out.damage.append(Damage(store.where(name), name, reason, remedy))
    for folder in sorted(set(broken) & chosen):
        remedy = _make_again(store, folder)
        out.damage.append(Damage(store.where(f"{folder}/{MANIFEST}"), folder, "the manifest is no manifest", remedy))
    for name in sorted(chosen):
        if name in artifacts:
            _expect_artifact(artifacts[name], out)
            if name in reached and not broken:  # a damaged manifest may be that of the input
                _expect_inputs(artifacts[name], graph, out)
        if name in there.folders:
            _expect_checkpoints(store, there.folders[name], out)
    return out


def verify(store: Store, plan: Verification, read: Callable[[int], object]) -> Iterator[Damage]:
    """What is wrong, in order of name; goes on after the first damage. Each file is named as it is found.

    Args:
        read: called with the number of bytes that were read, from several threads.
    """
    yield from plan.damage
    with ThreadPoolExecutor(READERS, "verify") as pool:
        try:
            for damage in pool.map(partial(_check, store, read), plan.files):
                if damage:
                    yield damage
        finally:
            pool.shutdown(cancel_futures=True)


def _make_again(store: Store, folder: str) -> str:
    return f"remove {store.where(folder)} and run the recipe again, which makes it anew"


def _expect_artifact(artifact: Artifact, out: Verification) -> None:
    store, folder, manifest = artifact.store, artifact.folder, artifact.manifest
    name, remedy = f"{folder}/{MANIFEST}", _make_again(store, folder)
    problems = []
    if digest(manifest.files) != manifest.digest:
        problems.append("its digest is not that of its list of files")
    planned = fingerprint(manifest.kind, manifest.stage_version, manifest.config, manifest.inputs)
    if planned != manifest.fingerprint or not folder.startswith(f"{manifest.kind}/{planned[:16]}"):
        problems.append("its fingerprint is not that of stage, version, config and inputs")
    if problems:
        out.damage.append(Damage(store.where(name), artifact.id, f"changed: {'; '.join(problems)}", remedy))
    out.artifacts += 1
    for entry in artifact.files():
        out.files.append(Expected(f"{folder}/{entry.path}", entry.bytes, entry.sha256, artifact.id, remedy, name))


def _expect_inputs(artifact: Artifact, graph: Graph, out: Verification) -> None:
    """Roles of artifacts are single words; `source/x` and `set/x` are listings, which have no folder."""
    for role, source in artifact.manifest.inputs.items():
        if "/" not in role and not graph.holding([source]):
            problem = f"what went in as {role}, {source[:12]}, is missing"
            remedy = "run the recipe again, which makes it anew"
            out.damage.append(Damage(artifact.store.where(artifact.folder), artifact.id, problem, remedy))


def _expect_checkpoints(store: Store, folder: Folder, out: Verification) -> None:
    """Manifests below an artifact's folder are checkpoints': their files lie beside them, and are listed alike."""
    for item in folder.objects:
        path = item.name.removeprefix(f"{folder.name}/")
        place, _, base = item.name.rpartition("/")
        if base != MANIFEST or path == MANIFEST or path.startswith("."):
            continue
        rest = (
            "the run is finished without it"
            if folder.finished
            else "the run goes on from an earlier one, or begins anew"
        )
        remedy = f"remove {store.where(place)}; {rest}"
        try:
            files = store.read_json(item.name)["files"]
            expected = [
                Expected(f"{place}/{e['path']}", int(e["bytes"]), str(e["sha256"]), place, remedy, item.name)
                for e in files
            ]
        except FileNotFoundError:  # training has removed an old checkpoint this moment
            continue
        except (StoreError, KeyError, TypeError, ValueError) as error:
            problem = f"the checkpoint's manifest is no manifest: {error}"
            out.damage.append(Damage(store.where(item.name), place, problem, remedy))
            continue
        out.checkpoints += 1
        out.files += expected


def _check(store: Store, read: Callable[[int], object], file: Expected) -> Damage | None:
    problem, remedy = _problem(store, read, file)
    if not problem or not store.exists(file.manifest):
        return None
    return Damage(store.where(file.name), file.of, problem, remedy)


def _problem(store: Store, read: Callable[[int], object], file: Expected) -> tuple[str, str]:
    total, size = hashlib.sha256(), 0
    try:
        with store.open(file.name) as stream:
            while chunk := stream.read(_CHUNK):
                total.update(chunk)
                size += len(chunk)
                read(len(chunk))
    except FileNotFoundError:
        return "missing", file.remedy
    except (OSError, StoreError) as error:
        return (
            f"cannot be read: {error}",
            "see that disk and store are well and verify again; if they are, " + file.remedy,
        )
    if size != file.bytes:
        return f"has {size:,} bytes, the manifest says {file.bytes:,}", file.remedy
    return ("" if total.hexdigest() == file.sha256 else "its bytes are not those that were written"), file.remedy
