"""The listing of an input: names, sizes and content hashes of its files. Its digest identifies a source."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import re
import stat
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cached_property, partial
from typing import Any, BinaryIO

import fsspec

from stages.corpus.reading.places import filesystem, local_path
from stages.corpus.reading.unread import Unread, count_unread, describe_unread, ignored_part, is_utf8
from stages.corpus.reading.walk import NO_PERMISSION, NOT_UTF8, describe_special, walk
from stages.store import InputError
from stages.store.credentials import refuse_credentials
from stages.store.hashing import cached_sha256


@dataclass(frozen=True)
class ListedFile:
    """One file of a listing."""

    name: str
    """Relative to the listing's location, `/`-separated."""
    bytes: int
    sha256: str
    """Hex digits; on object stores that have one, `etag:` and the store's ETag."""
    modified: int = field(default=0, compare=False)
    """When a local file was last changed, in nanoseconds; 0 where it is not known."""


@dataclass(frozen=True)
class Listing:
    """The files of one source or evaluation set. Neither the location nor what is not read is part of the digest."""

    location: str
    """Folder that the names are relative to: absolute path or URL."""
    files: tuple[ListedFile, ...]
    unread: tuple[Unread, ...] = ()
    """What else is in the folder, by reason. It may change from run to run without a change of the digest."""

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

    @cached_property
    def _by_name(self) -> dict[str, ListedFile]:
        return {file.name: file for file in self.files}

    def open(self, name: str) -> BinaryIO:
        """Opens one file as a stream of bytes, still compressed if it is.

        Raises:
            InputError: it does not exist, cannot be read, or has changed since it was listed.
        """
        path = self.path(name)
        try:
            if local_path(self.location) is not None:
                return _open_local(path, self._by_name.get(name))
            stream = _open_remote(self.location, name, path)
        except OSError as error:
            raise InputError(f"{path} cannot be opened: {error}; check that it was not moved during the run") from error
        _check_remote(path, stream, self._by_name.get(name))
        return io.BufferedReader(_Remote(stream, path), 1 << 20)


def _open_local(path: str, listed: ListedFile | None) -> BinaryIO:
    stream = open(path, "rb", opener=_open_without_waiting)  # noqa: SIM115
    try:
        status = os.fstat(stream.fileno())
        if kind := describe_special(status.st_mode):
            raise InputError(f"{path} is a {kind} now, not a regular file; put the file back and run again")
        if listed and _has_changed(path, status, listed):
            raise _changed(path)
    except BaseException:
        stream.close()
        raise
    return stream


def _open_remote(location: str, name: str, path: str) -> Any:
    try:
        fs, root = filesystem(location)
        return fs.open(f"{root.rstrip('/')}/{name}", "rb")
    except OSError:
        raise
    except Exception as error:
        raise _unreachable(path, "opened", error) from error


def _has_changed(path: str, status: os.stat_result, listed: ListedFile) -> bool:
    """By size and time of change; where only the time is another, the content decides."""
    if status.st_size != listed.bytes:
        return True
    return listed.modified not in (0, status.st_mtime_ns) and cached_sha256(path) != listed.sha256


def _open_without_waiting(path: str, flags: int) -> int:
    """Opening a named pipe would wait for a writer."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_remote(path: str, stream: Any, listed: ListedFile | None) -> None:
    """Compares an opened file's size and ETag, where they are known, with those of the listing."""
    if listed is None:
        return
    size = getattr(stream, "size", None)
    mark = _etag(getattr(stream, "details", None) or {}) if listed.sha256.startswith("etag:") else ""
    if size not in (None, listed.bytes) or (mark and mark != listed.sha256):
        raise _changed(path)


def _changed(path: str) -> InputError:
    return InputError(f"{path} has changed since this run listed it; run again, when nothing writes to it any more")


def list_files(
    location: str | os.PathLike[str],
    patterns: Sequence[str] | None = None,
    why_unread: Callable[[str], str] | None = None,
) -> Listing:
    """Lists a file, or a folder with all below it. Links are followed; hidden files and folders are not read.

    Args:
        location: local path or any fsspec URL.
        patterns: which files belong to the listing, ignoring case: `*.jsonl` anywhere, `/*.jsonl` directly in the
            folder, `2024/*.jsonl` in that subfolder. None takes every file.
        why_unread: why a file of this name is not read; empty for one that is read. Whoever gives it judges a listing
            without files.

    Raises:
        InputError: the location does not exist, is empty, or, without `why_unread`, has no file to read.
        CredentialsError: it has credentials in it.
    """
    text = os.path.expanduser(os.fspath(location))
    refuse_credentials("location", text)
    path = local_path(text)
    where, contents, unread = _local_files(path) if path else _remote_files(text)
    if patterns is not None:
        wanted = _Patterns(patterns, {*contents, *(name for _, name in unread)})
        others = [name for name in contents if not wanted.match(name)]
        contents = {name: content for name, content in contents.items() if wanted.match(name)}
        unread = [(reason, name) for reason, name in unread if wanted.match(name.rstrip("/"))]
        if not contents and others:
            raise InputError(
                f"{text} has no {', '.join(patterns)} file; its files are: {', '.join(sorted(others)[:5])}"
            )
    files = []
    for name in sorted(contents):
        if why_unread and (reason := why_unread(name)):
            unread.append((reason, name))
            continue
        try:
            files.append(ListedFile(name, *contents[name]()))
        except PermissionError:
            unread.append((NO_PERMISSION, name))
    found = count_unread(unread)
    if not files and not found:
        raise InputError(f"{text} is an empty folder; put files into it or use another one")
    if not files and not why_unread:
        raise InputError(f"{text} has no file that is read; not read: {'; '.join(describe_unread(found))}")
    return Listing(where, tuple(files), found)


class _Patterns:
    """Which files the patterns of a source mean; as in .gitignore, one without `/` matches at any depth.

    A pattern that is a path of one of the files, escaped, means this file alone: `/A.txt` is not `/a.txt` beside it.
    """

    def __init__(self, patterns: Sequence[str], names: Collection[str]):
        self._exact: set[str] = set()
        self._lower: set[str] = set()
        self._wild: list[tuple[bool, list[re.Pattern[str]]]] = []
        for pattern in patterns:
            anywhere, path = "/" not in pattern, pattern.removeprefix("/")
            literal = _ESCAPED.sub(r"\1", path)
            if anywhere or glob.escape(literal) != path:
                parts = path.lower().split("/")
                self._wild.append((anywhere, [re.compile(translate(part)) for part in parts]))
            elif literal in names:
                self._exact.add(literal)
            else:
                self._lower.add(literal.lower())

    def match(self, name: str) -> bool:
        """Whether a file belongs to one of the patterns."""
        if name in self._exact or name.lower() in self._lower:
            return True
        parts = name.lower().split("/")
        for anywhere, wanted in self._wild:
            at = parts[-1:] if anywhere else parts
            if len(at) == len(wanted) and all(one.match(part) for part, one in zip(at, wanted, strict=True)):
                return True
        return False


_ESCAPED = re.compile(r"\[([*?[])\]")
"""A character that `glob.escape` has put into brackets."""

_Contents = dict[str, Callable[[], tuple[int, str] | tuple[int, str, int]]]
"""Files by name, each with a function that gives its size, content hash and, if local, when it was changed."""


def _local_files(path: str) -> tuple[str, _Contents, list[tuple[str, str]]]:
    """(folder, files, unread entries) of a path of this machine."""
    if not is_utf8(path):
        raise InputError(f"{path!a}: the name is not UTF-8; rename the file or folder")
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            names, unread = walk(path)
            return path, {name: partial(_local_content, os.path.join(path, name)) for name in names}, unread
    except FileNotFoundError:
        hint = f"check the path (relative paths start at {os.getcwd()})"
        raise InputError(f"{path} does not exist; {hint}") from None
    except OSError as error:
        raise InputError(f"{path} cannot be listed: {error}") from error
    if kind := describe_special(mode):
        raise InputError(f"{path} is a {kind}, not a regular file or folder")
    folder, name = os.path.split(path)
    return folder, {name: partial(_local_content, path)}, []


def _local_content(path: str) -> tuple[int, str, int]:
    try:
        status = os.stat(path)
        return status.st_size, cached_sha256(path), status.st_mtime_ns
    except PermissionError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error}") from error


def _remote_files(url: str) -> tuple[str, _Contents, list[tuple[str, str]]]:
    """(folder, files, unread entries) of any fsspec URL."""
    try:
        fs, root = filesystem(url)
    except (ImportError, ValueError, OSError) as error:
        raise InputError(f"{url} cannot be opened: {error}") from error
    root = root.rstrip("/")
    try:
        fs.invalidate_cache()  # another process may have written there since
        found: dict[str, dict[str, Any]] = fs.find(root, detail=True)
        exists = bool(found) or fs.exists(root)
    except FileNotFoundError:
        found, exists = {}, False
    except OSError as error:
        raise InputError(f"{url} cannot be listed: {error}") from error
    except Exception as error:
        raise _unreachable(url, "listed", error) from error
    if not exists:
        raise InputError(f"{url} does not exist; check bucket, name and permissions")
    alone = list(found) == [root]
    folder = root.rsplit("/", 1)[0] if alone else root
    contents: _Contents = {}
    unread: dict[str, str] = {}
    for path, info in found.items():
        name = path[len(folder) + 1 :]
        if not name or name.endswith("/") or info.get("type") == "directory":
            continue
        ignored = None if alone else ignored_part(name)
        if ignored:
            unread[ignored[1]] = ignored[0]
        elif not is_utf8(name):
            unread[name] = NOT_UTF8
        else:
            contents[name] = partial(_remote_content, fs, path, info)
    return fs.unstrip_protocol(folder), contents, [(reason, name) for name, reason in unread.items()]


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


def _remote_content(fs: fsspec.AbstractFileSystem, path: str, info: Mapping[str, Any]) -> tuple[int, str]:
    """A file's size and content hash: an object store's ETag, which needs no reading, else sha256."""
    mark, size = _etag(info), info.get("size")
    if mark and size is not None:
        return int(size), mark
    total, size = hashlib.sha256(), 0
    try:
        with fs.open(path, "rb") as stream:
            while chunk := stream.read(1 << 20):
                total.update(chunk)
                size += len(chunk)
    except Exception as error:
        raise _unreachable(fs.unstrip_protocol(path), "read", error) from error
    return size, total.hexdigest()


def _etag(info: Mapping[str, Any]) -> str:
    """What stands for a file's content in a listing; empty where the store has no ETag."""
    mark = info.get("ETag") or info.get("etag") or info.get("md5Hash")
    return f"etag:{str(mark).strip(chr(34))}" if mark else ""
