"""The listing of an input: names, sizes and content hashes of its files. Its digest identifies a source."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any, BinaryIO

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stages.store import InputError
from stages.store.hashing import cached_sha256


@dataclass(frozen=True)
class ListedFile:
    """One file of a listing."""

    name: str
    """Relative to the listing's location, `/`-separated."""
    bytes: int
    sha256: str
    """Hex digits; on object stores that have one, `etag:` and the store's ETag."""


@dataclass(frozen=True)
class Listing:
    """The files of one source or evaluation set. The location is not part of the digest."""

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
            InputError: it does not exist or cannot be read.
        """
        path = self.path(name)
        try:
            stream = fsspec.open(path, "rb").open()
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error}; check that it was not moved during the run") from error
        except Exception as error:
            raise _unreachable(path, "opened", error) from error
        return io.BufferedReader(_Remote(stream, path), 1 << 20) if "://" in self.location else stream


def list_files(location: str | os.PathLike[str], patterns: Sequence[str] | None = None) -> Listing:
    """Lists a file, or a folder with all below it; hidden files and folders are left out.

    Args:
        location: local path or any fsspec URL.
        patterns: file name patterns such as `*.jsonl`; None takes every file.

    Raises:
        InputError: the location does not exist, is empty, or has no matching file.
    """
    text = os.path.expanduser(os.fspath(location))
    try:
        fs, root = fsspec.core.url_to_fs(text if "://" in text else os.path.abspath(text))
    except (ImportError, ValueError) as error:
        raise InputError(f"{text} cannot be opened: {error}") from error
    root = root.rstrip("/")
    local = isinstance(fs, LocalFileSystem)
    try:
        fs.invalidate_cache()  # another process may have written there since
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
        empty = not found and fs.exists(root)
    except FileNotFoundError:
        found, empty = {}, False
    except OSError as error:
        raise InputError(f"{text} cannot be listed: {error}") from error
    except Exception as error:
        if local:
            raise
        raise _unreachable(text, "listed", error) from error
    if empty:
        raise InputError(f"{text} is an empty folder; put documents into it or use another one")
    if not found:
        hint = (
            f"check the path (relative paths start at {os.getcwd()})" if local else "check bucket, name and permissions"
        )
        raise InputError(f"{text} does not exist; {hint}")
    folder = root.rsplit("/", 1)[0] if list(found) == [root] else root
    files = []
    for path, info in sorted(found.items()):
        name = path[len(folder) + 1 :]
        base = name.rsplit("/", 1)[-1]
        if any(part.startswith(".") for part in name.split("/")) or info.get("type") == "directory":
            continue
        if patterns is None or any(fnmatch(base.lower(), pattern) for pattern in patterns):
            files.append(ListedFile(name, *_content(fs, path, info)))
    if not files:
        wanted = f"no {', '.join(patterns)} file" if patterns else "only hidden files"
        raise InputError(f"{text} has {wanted}; its files are: {', '.join(sorted(_names(found, folder))[:5])}")
    where = folder if local else fs.unstrip_protocol(folder)
    return Listing(where, tuple(files))


class _Remote(io.RawIOBase):
    """A remote stream whose failures end the run.

    A local file that cannot be read further is damaged; the reader quarantines the rest and continues. A broken
    connection says nothing about the file, and a corpus without the rest would have the fingerprint of the whole one.
    """

    def __init__(self, stream: BinaryIO, path: str):
        self._stream, self._path = stream, path

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._stream.seekable()

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._call(lambda: self._stream.seek(offset, whence))

    def tell(self) -> int:
        return self._stream.tell()

    def readinto(self, buffer: Any) -> int:
        data = self._call(lambda: self._stream.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()

    def _call(self, function: Callable[[], Any]) -> Any:
        try:
            return function()
        except Exception as error:
            raise _unreachable(self._path, "read", error) from error


def _unreachable(path: str, verb: str, error: Exception) -> InputError:
    """The error for a remote failure, of any type: botocore's errors are not OSErrors."""
    return InputError(
        f"{path} cannot be {verb}: {error}; check that it can be reached (for s3:// AWS_ENDPOINT_URL and "
        "the credentials) and run again"
    )


def _names(found: dict[str, Any], folder: str) -> list[str]:
    return [path[len(folder) + 1 :] for path in found]


def _content(fs: fsspec.AbstractFileSystem, path: str, info: dict[str, Any]) -> tuple[int, str]:
    """A file's size and content hash: sha256, or an object store's ETag, which needs no reading."""
    if isinstance(fs, LocalFileSystem):
        return int(info["size"]), _local_sha256(path)
    mark, size = info.get("ETag") or info.get("etag") or info.get("md5Hash"), info.get("size")
    if mark and size is not None:
        return int(size), f"etag:{str(mark).strip(chr(34))}"
    total, size = hashlib.sha256(), 0
    try:
        with fs.open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                total.update(chunk)
                size += len(chunk)
    except Exception as error:
        raise _unreachable(fs.unstrip_protocol(path), "read", error) from error
    return size, total.hexdigest()


def _local_sha256(path: str) -> str:
    try:
        return cached_sha256(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error
