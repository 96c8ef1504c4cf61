"""An artifact in the store: finding, reading and verifying one, and the writer that commits a new one."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from stages.store.errors import StoreError
from stages.store.events import EventLog
from stages.store.fields import describe
from stages.store.hashing import cache_folder, sha256_file
from stages.store.lease import Lease
from stages.store.manifest import MANIFEST, FileEntry, Manifest, digest, software_versions
from stages.store.names import check_file_path, is_folder, refuse_links
from stages.store.private_files import make_private_folder
from stages.store.store import Store, describe_os_error, translate_disk_errors

SCRATCH = ".scratch"
"""Folder in the artifact's folder where a writer on local files collects them; cleared by the next writer."""
RESUME_DIR = "resume"
"""Folder below it for finished parts that the next writer reuses if this one fails or is killed."""
COMMIT_THREADS = 4
"""Files that are hashed and moved in parallel: one waits for disk or object store while another is read."""
SOFTWARE = (
    "headwater",
    "torch",
    "ray",
    "datatrove",
    "pyarrow",
    "tokenizers",
    "gigatoken",
    "transformers",
    "lm-eval",
    "numba",
)


@dataclass(frozen=True)
class Artifact:
    """A finished artifact: a folder in a store and its manifest."""

    store: Store
    folder: str
    """Name of the folder in the store, `{kind}/{fingerprint:16}[-{run:8}]`."""
    manifest: Manifest

    @property
    def digest(self) -> str:
        return self.manifest.digest

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def id(self) -> str:
        """Short name for people: `kind/` and the first digits of the digest."""
        return f"{self.manifest.kind}/{self.digest[:12]}"

    def files(self, prefix: str = "") -> list[FileEntry]:
        """The artifact's files whose path begins with `prefix`, sorted by path."""
        return sorted((f for f in self.manifest.files if f.path.startswith(prefix)), key=lambda f: f.path)

    def open(self, path: str) -> BinaryIO:
        return self.store.open(f"{self.folder}/{path}")

    def read(self, path: str) -> bytes:
        return self.store.read(f"{self.folder}/{path}")

    def local(self, path: str = "") -> Path:
        """A local path of one file (or of the whole folder), to be memory-mapped or passed to a library.

        Files of an object store are fetched once into this user's cache folder, and their sha256 is checked.

        Raises:
            StoreError: a file is damaged or cannot be written; or the manifest's digest is not that of its files, which
                would put them among another artifact's.
        """
        if self.store.is_local:
            return self.store.local_path(f"{self.folder}/{path}" if path else self.folder)
        if digest(self.manifest.files) != self.digest:
            raise StoreError(
                f"{self.store.where(self.folder)}/{MANIFEST} is damaged: its digest does not match its list of files; "
                "remove the folder and run again to rebuild it"
            )
        cache = cache_folder() / "artifacts" / self.digest
        files = self.files(path)
        with translate_disk_errors(f"artifact {self.id}", cache):
            make_private_folder(cache)
            if cache.with_name(self.digest.upper()).exists():  # a file system that takes `a` and `A` for one name
                _refuse_equal_but_for_case(files)
            with (cache.parent / f"{self.digest}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)  # the ranks of one machine fetch at the same time
                for entry in files:
                    self._fetch(entry, cache)
        return cache / path if path else cache

    def _fetch(self, entry: FileEntry, cache: Path) -> None:
        """Fetches one file into the cache, whose lock we hold, unless it is cached, and checks its sha256."""
        target = refuse_links(cache, cache / entry.path)
        if target.is_file() and target.stat().st_size == entry.bytes:
            return
        temporary = cache.with_name(f"{cache.name}.part")  # beside the artifact's own names
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            self.store.get_file(f"{self.folder}/{entry.path}", temporary)
            if sha256_file(temporary) != entry.sha256:
                raise StoreError(
                    f"artifact {self.id}: {self.store.where(f'{self.folder}/{entry.path}')} is damaged: its sha256 is "
                    "not the manifest's; remove the folder and run again to rebuild it"
                )
            temporary.replace(target)
        except FileNotFoundError as error:
            raise StoreError(
                f"artifact {self.id}: {self.store.where(f'{self.folder}/{entry.path}')} is missing; remove the folder "
                "and run again to rebuild it"
            ) from error
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise StoreError(f"artifact {self.id}: cannot cache {target}: {error}; remove {cache}") from error
        finally:
            temporary.unlink(missing_ok=True)  # a partial file would waste space on a disk that may be full

    def events(self) -> EventLog:
        return EventLog(self.store, self.folder)

    def check_sizes(self) -> None:
        """Cheap check before a cached artifact is used: each file exists and has its size.

        Raises:
            StoreError: a file is missing or has another size; names the first one.
        """
        for entry in self.manifest.files:
            size = self.store.size(f"{self.folder}/{entry.path}")
            if size != entry.bytes:
                state = "is missing" if size is None else f"has {size} bytes"
                raise StoreError(
                    f"artifact {self.id}: {self.store.where(self.folder)}/{entry.path} {state}, the manifest says "
                    f"{entry.bytes} bytes; remove the folder and run again to rebuild it"
                )


def _refuse_equal_but_for_case(files: Iterable[FileEntry]) -> None:
    found: dict[str, str] = {}
    for entry in files:
        other = found.setdefault(entry.path.casefold(), entry.path)
        if other != entry.path:
            raise StoreError(
                f"artifact: {other!r} and {entry.path!r} are one name on this machine's cache; set XDG_CACHE_HOME to a "
                "case-sensitive file system"
            )


def load(store: Store, folder: str) -> Artifact | None:
    """The artifact in `folder`; None if the folder has no manifest."""
    try:
        data = store.read(f"{folder}/{MANIFEST}")
    except FileNotFoundError:
        return None
    try:
        return Artifact(store, folder, Manifest.model_validate_json(data))
    except ValueError as error:
        raise StoreError(f"{store.where(folder)}/{MANIFEST} is damaged: {describe(error)}") from error


def all_artifacts(store: Store, kind: str | None = None) -> Iterator[Artifact]:
    """All artifacts in the store (of one kind), sorted by folder."""
    kinds = [kind] if kind else [name for name in store.folders("") if name not in ("refs", "deployments")]
    for folder in (folder for name in kinds for folder in store.folders(name)):
        if is_folder(folder):
            artifact = load(store, folder)
            if artifact:
                yield artifact


def by_digest(store: Store, start: str) -> Artifact:
    """The artifact whose digest, `kind/digest` or fingerprint begins with `start`.

    Raises:
        StoreError: no artifact matches, or more than one.
    """
    return named(store, all_artifacts(store, start.rpartition("/")[0] or None), start)


def named(store: Store, artifacts: Iterable[Artifact], start: str) -> Artifact:
    """Like `by_digest`, among these artifacts of the store."""
    kind, _, rest = start.rpartition("/")
    found = [
        a
        for a in artifacts
        if rest and kind in ("", a.manifest.kind) and (a.digest.startswith(rest) or a.fingerprint.startswith(rest))
    ]
    if not found:
        raise StoreError(f"no artifact {start!r} in {store.url}; `headwater status` lists the refs")
    if len({a.digest for a in found}) > 1:
        raise StoreError(f"{start!r} is ambiguous: {', '.join(sorted(a.id for a in found))}")
    return found[0]


def scratch_folder(store: Store, folder: str) -> Path:
    """The local folder where a writer on this machine collects the files of the artifact in `folder`.

    On local files it is below `folder`, so that a commit is a rename; otherwise its name depends on `folder` only, so
    that the next attempt on this machine finds and clears it.
    """
    if store.is_local:
        return store.local_path(f"{folder}/{SCRATCH}")
    return cache_folder() / "scratch" / hashlib.sha256(store.where(folder).encode()).hexdigest()[:16]


def leftovers(store: Store, folder: str, *, finished: bool, resumes: bool) -> list[str]:
    """Names of objects below `folder` that a killed writer left behind and nobody needs.

    These are temporary files, and leases if the artifact is `finished`. If it is not, they include all files under
    their final names, or the disk might have to hold the artifact twice; unless the next attempt `resumes` from them.
    """
    found = []
    for name in store.list(folder):
        path = name[len(folder) + 1 :]
        base = path.rsplit("/", 1)[-1]
        if path.startswith(".lease-") and f".{os.getpid()}-" in path:
            continue  # our own heartbeat's temporary file
        if path.startswith(f"{SCRATCH}/{RESUME_DIR}/") and not finished:
            continue  # the next attempt resumes from it
        temporary = base.startswith(".") and base.endswith(".tmp")
        lease, log = path.startswith("lease-"), path.startswith(("events.jsonl", "events/"))
        if temporary or (lease and finished) or not (finished or resumes or lease or log):
            found.append(name)
    return found


@dataclass
class ArtifactWriter:
    """Collects an artifact's files in a scratch folder and commits them, manifest last.

    A stage writes `writer.file("shards/0.arrow")` (a local path to fill), or `writer.put("x.json", data)`; sets
    `counts`, `metrics`, `details`; and `commit()` does the rest.
    """

    store: Store
    folder: str
    kind: str
    stage_version: int
    fingerprint: str
    config: dict[str, Any]
    inputs: dict[str, str]
    run: str | None = None
    resolved_config: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)
    lease: Lease | None = None
    """The right to write to the folder; confirmed before each step of the commit."""
    started: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.events = EventLog(self.store, self.folder)
        self._paths: set[str] = set()
        self._existing: list[FileEntry] = []
        self._hashes: dict[str, str] = {}
        below = scratch_folder(self.store, self.folder)
        for entry in below.iterdir() if below.is_dir() else ():
            if entry.name != RESUME_DIR:
                shutil.rmtree(entry, ignore_errors=True)
        # A folder of our own: a writer that was wrongly taken for dead goes on writing to its folder.
        self.scratch = below / secrets.token_hex(4)
        try:
            make_private_folder(below)
            self.scratch.mkdir()
        except OSError as error:
            raise StoreError(f"{self.kind}: cannot create {self.scratch}: {describe_os_error(error)}") from error

    def file(self, path: str) -> Path:
        """A local path for the artifact's file `path`. Its folder exists; the file is published at commit.

        Raises:
            ValueError: a manifest cannot list such a path.
        """
        self._paths.add(check_file_path(path))
        local = self.scratch / "files" / path
        local.parent.mkdir(parents=True, exist_ok=True)
        return local

    def link_cached(self, path: str, cached: Path, sha256: str) -> None:
        """Hard-links a finished file in a `resume_dir` as the artifact's file `path`; `sha256` is not computed again.

        The original stays, so that the next attempt finds it if this one fails before its commit.
        """
        local = self.file(path)
        try:
            os.link(cached, local)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EMLINK):
                raise
            shutil.copyfile(cached, local)  # a file system without hard links
        self._hashes[path] = sha256

    def put(self, path: str, data: bytes) -> None:
        """Writes a small file of the artifact."""
        self.file(path).write_bytes(data)

    def register_existing(self, entry: FileEntry) -> None:
        """Adds a file to the manifest that another machine has already stored under its final name.

        Raises:
            StoreError: the stored file has another size, or is missing.
        """
        size = self.store.size(f"{self.folder}/{entry.path}")
        if size != entry.bytes:
            raise StoreError(
                f"stage {self.kind}: {self.store.where(f'{self.folder}/{entry.path}')} has {size} bytes instead of "
                f"{entry.bytes}; run again"
            )
        self._existing.append(entry)

    def work(self, name: str) -> Path:
        """A local folder for temporary files that are not part of the artifact."""
        folder = self.scratch / "work" / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def resume_dir(self, name: str) -> Path:
        """A local folder for finished parts of the work, which the next attempt reuses if this one fails or is killed.

        A writer that was wrongly taken for dead may use it at the same time: write to a temporary file with a unique
        name, and rename; two writers of one plan write the same content.
        """
        folder = self.scratch.parent / RESUME_DIR / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def commit(self) -> Artifact:
        """Hashes all files and moves them to their final names; then creates the manifest.

        Raises:
            LeaseHeldError: another process has taken the work over; nothing of its files is replaced.
            StoreError: the store cannot be written; or another process has committed this artifact.
        """
        self.confirm()
        for path in self._paths:
            if not (self.scratch / "files" / path).is_file():
                raise StoreError(f"stage {self.kind}: file {path} was requested with `file()` and never written")
        with ThreadPoolExecutor(COMMIT_THREADS) as pool:
            entries = [*self._existing, *pool.map(self._publish, sorted(self._paths))]
        manifest = Manifest(
            kind=self.kind,
            fingerprint=self.fingerprint,
            digest=digest(entries),
            run=self.run,
            stage_version=self.stage_version,
            config=self.config,
            resolved_config=self.resolved_config,
            inputs=self.inputs,
            files=sorted(entries, key=lambda entry: entry.path),
            counts=self.counts,
            metrics=self.metrics,
            details=self.details,
            software=software_versions(SOFTWARE),
            started=self.started,
            finished=datetime.now(UTC),
        )
        self._create_manifest(manifest.model_dump_json(indent=1).encode())
        shutil.rmtree(self.scratch.parent / RESUME_DIR, ignore_errors=True)
        self.discard()
        return Artifact(self.store, self.folder, manifest)

    def confirm(self) -> None:
        """Checks that the folder is still ours to write and holds no finished artifact.

        Raises:
            LeaseHeldError: another process has taken the work over.
            StoreError: another process has committed this artifact.
        """
        if self.lease:
            self.lease.confirm()
        if self.store.exists(f"{self.folder}/{MANIFEST}"):
            raise StoreError(f"{self.store.where(self.folder)}: another process committed this artifact first")

    def remove_leftover(self, name: str) -> None:
        """Removes an object that an earlier attempt left in the folder.

        On local files it goes through the scratch folder, as in `_publish`: the file of a successor stays.
        """
        self.confirm()
        if not self.store.is_local:
            self.store.remove(name)
            return
        aside = self.scratch / "leftover"
        try:
            with self.store.translate_errors("remove", name):
                os.replace(self.store.local_path(name), aside)
                aside.unlink()
        except FileNotFoundError:  # it is gone, or our scratch folder is, with our lease
            self.confirm()

    def _publish(self, path: str) -> FileEntry:
        """Moves a file to its final name.

        On local files a process that was suspended after `confirm` cannot do it any more: whoever took the work over
        has removed its scratch folder. On object stores it finds the file there, which is not replaced.
        """
        local, name = self.scratch / "files" / path, f"{self.folder}/{path}"
        try:
            entry = FileEntry(
                path=path, bytes=local.stat().st_size, sha256=self._hashes.get(path) or sha256_file(local)
            )
            self.confirm()
            if not self.store.put_file(local, name, replace=False):
                self.confirm()  # it was left by an earlier attempt, or by a process that was suspended
                self.store.put_file(local, name)
        except (OSError, StoreError):
            self.confirm()  # a better reason: our files were removed by whoever took the work over
            raise
        return entry

    def _create_manifest(self, data: bytes) -> None:
        """Like `_publish`: through the scratch folder, which a process that has lost its lease no longer has."""
        name = f"{self.folder}/{MANIFEST}"
        try:
            self.confirm()
            created = self.store.create(name, data, scratch=self.scratch)
        except StoreError:
            self.confirm()
            raise
        if not created:
            raise StoreError(f"{self.store.where(self.folder)}: another process committed this artifact first")

    def discard(self) -> None:
        """Removes the scratch folder; the `resume_dir`s stay."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        with suppress(OSError):  # another writer's folder is in it
            self.scratch.parent.rmdir()
