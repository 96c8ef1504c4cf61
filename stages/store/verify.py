"""Verification: all files are hashed again and compared with the manifests; damaged and missing ones are reported.

Covered are the files of all artifacts, the manifests themselves (digest and fingerprint are computed anew), committed
checkpoints, which have manifests of their own, refs, and the inputs of what refs reach. Events, and the descriptive
fields of a manifest (counts, metrics, times), have no hash to be compared with.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial

from stages.store.artifact import Artifact, named
from stages.store.errors import StoreError
from stages.store.manifest import MANIFEST, digest, fingerprint, parse_files
from stages.store.reach import Graph, Roots
from stages.store.store import Store
from stages.store.survey import Folder, survey

READERS = 4
"""Files that are read in parallel: hashing releases the GIL, and object stores serve parallel requests."""
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Damage:
    """One damaged or missing file, manifest, ref or input."""

    path: str
    """Absolute path or URL."""
    of: str
    """The artifact (`kind/digest`), checkpoint or ref that it belongs to."""
    problem: str
    remedy: str
    """What to do about it."""


@dataclass(frozen=True)
class Expected:
    """A file to be read, with its expected size and hash."""

    name: str
    bytes: int
    sha256: str
    of: str
    remedy: str
    manifest: str
    """Name of the manifest that lists it. If it no longer exists when the file is read, both were removed meanwhile."""


@dataclass
class Verification:
    """The files to be read, and the damage that is visible without reading them."""

    artifacts: int = 0
    checkpoints: int = 0
    files: list[Expected] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Bytes to be read in total."""
        return sum(item.bytes for item in self.files)


def plan_verification(store: Store, roots: Roots, start: str = "") -> Verification:
    """The files to be read to verify the whole store, or one artifact and all its inputs.

    Args:
        roots: the targets of refs and other records.
        start: a ref such as `biomed/champion`, or the start of a digest, `kind/digest` or fingerprint; empty: all.

    Raises:
        StoreError: no artifact matches, or several do; or the store cannot be listed.
    """
    contents = survey(store)
    artifacts, broken = contents.artifacts(store)
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
        chosen, reached = set(contents.folders), graph.reach(root.folder for root in roots.found.values())

    for name, reason in roots.dangling(artifacts).items():
        root = roots.found.get(name)
        if root is None or root.folder not in broken:  # the manifest is reported below
            remedy = "run the recipe again, which sets it, or remove it"
            out.damage.append(Damage(store.where(name), name, reason, remedy))
    for folder in sorted(set(broken) & chosen):
        remedy = _rebuild_remedy(store, folder)
        out.damage.append(
            Damage(store.where(f"{folder}/{MANIFEST}"), folder, "manifest.json is not a valid manifest", remedy)
        )
    for name in sorted(chosen):
        if name in artifacts:
            _expect_artifact(artifacts[name], out)
            if name in reached and not broken:  # the damaged manifest may be that of the input
                _expect_inputs(artifacts[name], graph, out)
        if name in contents.folders:
            _expect_checkpoints(store, contents.folders[name], out)
    return out


def verify(store: Store, plan: Verification, read: Callable[[int], object]) -> Iterator[Damage]:
    """All damage, sorted by name; each is reported as soon as it is found.

    Args:
        read: called with the number of bytes read since its last call, from several threads.
    """
    yield from plan.damage
    with ThreadPoolExecutor(READERS, "verify") as pool:
        try:
            for damage in pool.map(partial(_check, store, read), plan.files):
                if damage:
                    yield damage
        finally:
            pool.shutdown(cancel_futures=True)


def _rebuild_remedy(store: Store, folder: str) -> str:
    return f"remove {store.where(folder)} and run the recipe again, which rebuilds it"


def _expect_artifact(artifact: Artifact, out: Verification) -> None:
    store, folder, manifest = artifact.store, artifact.folder, artifact.manifest
    name, remedy = f"{folder}/{MANIFEST}", _rebuild_remedy(store, folder)
    problems = []
    if digest(manifest.files) != manifest.digest:
        problems.append("its digest does not match its list of files")
    planned = fingerprint(manifest.kind, manifest.stage_version, manifest.config, manifest.inputs)
    if planned != manifest.fingerprint or not folder.startswith(f"{manifest.kind}/{planned[:16]}"):
        problems.append("its fingerprint does not match stage, version, config and inputs")
    if problems:
        out.damage.append(Damage(store.where(name), artifact.id, f"changed: {'; '.join(problems)}", remedy))
    out.artifacts += 1
    for entry in artifact.files():
        out.files.append(Expected(f"{folder}/{entry.path}", entry.bytes, entry.sha256, artifact.id, remedy, name))


def _expect_inputs(artifact: Artifact, graph: Graph, out: Verification) -> None:
    """Roles of artifacts are single words; `source/x` and `set/x` are listings, which are not in the store."""
    for role, source in artifact.manifest.inputs.items():
        if "/" not in role and not graph.folders_of([source]):
            problem = f"its input {role}, {source[:12]}, is missing"
            remedy = "run the recipe again, which rebuilds it"
            out.damage.append(Damage(artifact.store.where(artifact.folder), artifact.id, problem, remedy))


def _expect_checkpoints(store: Store, folder: Folder, out: Verification) -> None:
    """Manifests below an artifact's folder are those of checkpoints: they list the files beside them alike."""
    for item in folder.objects:
        path = item.name.removeprefix(f"{folder.name}/")
        place, _, base = item.name.rpartition("/")
        if base != MANIFEST or path == MANIFEST or path.startswith("."):
            continue
        rest = (
            "the run finished without it"
            if folder.finished
            else "the run resumes from an earlier checkpoint, or starts over"
        )
        remedy = f"remove {store.where(place)}; {rest}"
        try:
            files = parse_files(store.read_json(item.name), store.where(item.name))
        except FileNotFoundError:  # training has removed an old checkpoint since the listing
            continue
        except StoreError as error:
            problem = f"the checkpoint's manifest is not valid: {error}"
            out.damage.append(Damage(store.where(item.name), place, problem, remedy))
            continue
        out.checkpoints += 1
        out.files += [
            Expected(f"{place}/{entry.path}", entry.bytes, entry.sha256, place, remedy, item.name) for entry in files
        ]


def _check(store: Store, read: Callable[[int], object], file: Expected) -> Damage | None:
    problem, remedy = _read_and_compare(store, read, file)
    if not problem or not store.exists(file.manifest):
        return None
    return Damage(store.where(file.name), file.of, problem, remedy)


def _read_and_compare(store: Store, read: Callable[[int], object], file: Expected) -> tuple[str, str]:
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
            "check disk and store and verify again; if they are in order, " + file.remedy,
        )
    if size != file.bytes:
        return f"has {size:,} bytes, the manifest says {file.bytes:,}", file.remedy
    return ("" if total.hexdigest() == file.sha256 else "its sha256 is not the manifest's"), file.remedy
