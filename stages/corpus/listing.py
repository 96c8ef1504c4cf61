"""The listing of an input: which files, how large, which content. Its digest is what a source *is*."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stages.artifact import InputError
from stages.artifact.hashing import remembered_sha256


@dataclass(frozen=True)
class ListedFile:
    """One file of a listing."""

    name: str
    """Relative to the listing's location, `/`-separated."""
    bytes: int
    sha256: str
    """Hex digits; on object stores that tell one, `etag:` and the store's own mark of the content."""


@dataclass(frozen=True)
class Listing:
    """The files of one source or evaluation set. Where they lie is not part of what they are."""

    location: str
    """Folder that the names are relative to: absolute path or URL."""
    files: tuple[ListedFile, ...]

    @property
    def digest(self) -> str:
        """Hash over the sorted (name, bytes, sha256); 64 hex digits."""
        total = hashlib.sha256()
        for file in sorted(self.files, key=lambda item: item.name):
            total.update(json.dumps([file.name, file.bytes, file.sha256]).encode() + b"\n")
        return total.hexdigest()

    @property
    def bytes(self) -> int:
        """Size of all files together."""
        return sum(file.bytes for file in self.files)

    def path(self, name: str) -> str:
        """Absolute path or URL of one file."""
        return f"{self.location}/{name}"

    def open(self, name: str) -> BinaryIO:
        """Opens one file as a stream of bytes, still compressed if it is.

        Raises:
            InputError: it is gone or cannot be read.
        """
        try:
            return fsspec.open(self.path(name), "rb").open()
        except OSError as error:
            raise InputError(f"{self.path(name)} cannot be opened: {error}; was it moved during the run?") from error


def list_files(location: str | os.PathLike[str], patterns: Sequence[str] | None = None) -> Listing:
    """Lists a file, or a folder with all below it; hidden files and folders are left out.

    Args:
        location: local path or any fsspec URL.
        patterns: file name patterns such as `*.jsonl`; None takes every file.

    Raises:
        InputError: nothing is there, or nothing that fits.
    """
    text = os.path.expanduser(os.fspath(location))
    try:
        fs, root = fsspec.core.url_to_fs(text if "://" in text else os.path.abspath(text))
    except (ImportError, ValueError) as error:
        raise InputError(f"{text} cannot be opened: {error}") from error
    root = root.rstrip("/")
    try:
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
    except FileNotFoundError:
        found = {}
    except OSError as error:
        raise InputError(f"{text} cannot be listed: {error}") from error
    if not found:
        if fs.exists(root):
            raise InputError(f"{text} is an empty folder; put documents into it or name another one")
        raise InputError(f"{text} is not there; check the path (relative ones start at {os.getcwd()})")
    folder = root.rsplit("/", 1)[0] if list(found) == [root] else root
    files = []
    for path, info in sorted(found.items()):
        name = path[len(folder) + 1 :]
        base = name.rsplit("/", 1)[-1]
        if any(part.startswith(".") for part in name.split("/")):
            continue
        if patterns is None or any(fnmatch(base.lower(), pattern) for pattern in patterns):
            files.append(ListedFile(name, int(info["size"]), _content(fs, path, info)))
    if not files:
        wanted = f"no {', '.join(patterns)} file" if patterns else "only hidden files"
        raise InputError(f"{text} holds {wanted}; there are: {', '.join(sorted(_names(found, folder))[:5])}")
    where = folder if isinstance(fs, LocalFileSystem) else fs.unstrip_protocol(folder)
    return Listing(where, tuple(files))


def _names(found: dict[str, Any], folder: str) -> list[str]:
    return [path[len(folder) + 1 :] for path in found]


def _content(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any]) -> str:
    """The mark of a file's content: sha256, or what an object store tells about it without reading it."""
    if isinstance(fs, LocalFileSystem):
        return _local_sha256(path)
    mark = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    if mark:
        return f"etag:{str(mark).strip(chr(34))}"
    with fs.open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _local_sha256(path: str) -> str:
    try:
        return remembered_sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
