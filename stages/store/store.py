"""The artifact store: any fsspec URL, and the only module that may rename, append or create exclusively.

Object stores can neither rename nor append, so nothing outside this module assumes either. `put` replaces an object
as a whole, `create` makes one only if none has that name, `rewrite` changes one only if it is still the caller's. On
local files the first writes a temporary file and renames it, the second links it into place, which fails if the name
exists (a plain `O_EXCL` open could leave half an object behind), and the third writes into the file that it has read.
On S3 the second and the third are conditional writes (`If-None-Match: *`, `If-Match`).

Endpoint and credentials of an object store come from the environment: for `s3://` `AWS_ENDPOINT_URL`,
`AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_PROFILE` and the rest that botocore knows.
"""

from __future__ import annotations

import errno
import json
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import fsspec
from fsspec.asyn import AsyncFileSystem
from fsspec.implementations.local import LocalFileSystem

from stages.store.conditional import is_refusal, rewrite_file, translate_refusal
from stages.store.connections import silence_lost_writes
from stages.store.credentials import refuse_credentials
from stages.store.errors import HeadwaterError, StoreError
from stages.store.names import refuse_links

_MAY_BE_MISSING = ("find", "read", "list", "remove", "update")
"""Operations that report a missing object as FileNotFoundError."""
_PATTERN = re.compile(r"[*?[]")
"""Characters by which fsspec takes a name for a pattern."""


class Store:
    """A folder tree at an fsspec URL. Names are relative, `/`-separated, and never point outside the root.

    Every method raises StoreError when the store cannot be reached or refuses the operation, and FileNotFoundError
    when the object does not exist. A URL with credentials in it is refused with a CredentialsError.
    """

    def __init__(self, url: str | os.PathLike[str]):
        text = os.fspath(url)
        refuse_credentials("store", text)
        if "://" not in text and not os.path.isabs(text):
            raise StoreError(f"store: {text!r} is a relative path; give an absolute path or a URL")
        try:
            # Other processes write here too: a cached listing would hide their files.
            self.fs, self.root = fsspec.core.url_to_fs(text, use_listings_cache=False)
        except (ImportError, ValueError) as error:
            raise StoreError(f"store: {text!r} cannot be opened: {error}") from error
        self.root = self.root.rstrip("/")
        self.url = self.fs.unstrip_protocol(self.root)
        self.is_local = isinstance(self.fs, LocalFileSystem)
        if isinstance(self.fs, AsyncFileSystem):
            silence_lost_writes(self.fs.loop)

    def path(self, name: str) -> str:
        """The file system's own path of `name`."""
        if name.startswith("/") or ".." in name.split("/") or "\0" in name:
            raise StoreError(f"store: {name!r} is not a name inside the store")
        return f"{self.root}/{name}" if name else self.root

    def local_path(self, name: str) -> Path:
        """`name` as a local file, refused if a link leads out of the store. Only for stores on local files."""
        if not self.is_local:
            raise StoreError(f"store: {self.url} is not on local files")
        return refuse_links(self.root, self.path(name))

    def _writable_path(self, name: str) -> str:
        """Like `path`, for what creates, replaces or removes `name`: its folder must not lead out of the store."""
        path = self.path(name)
        if self.is_local and name:
            refuse_links(self.root, os.path.dirname(path))
        return path

    def where(self, name: str) -> str:
        """`name` for messages: an absolute path, or a URL."""
        return self.path(name) if self.is_local else self.fs.unstrip_protocol(self.path(name))

    def exists(self, name: str) -> bool:
        with self.translate_errors("find", name):
            return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int | None:
        """Bytes of an object, None if there is none."""
        try:
            with self.translate_errors("find", name):
                return int(self.fs.size(self.path(name)))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        with self.translate_errors("read", name):
            return bytes(self.fs.cat_file(self.path(name)))

    def read_all(self, names: list[str]) -> list[bytes]:
        """The contents of several objects, fetched side by side where the store can."""
        if not names:
            return []
        if any(_PATTERN.search(name) for name in names):  # `cat` would expand it
            return [self.read(name) for name in names]
        with self.translate_errors("read", names[0]):
            found = self.fs.cat([self.path(name) for name in names])
        return [bytes(found[self.path(name)]) for name in names]

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.read(name))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"store: {self.where(name)} is not valid JSON: {error}") from error

    def open(self, name: str) -> BinaryIO:
        """An object as a stream of bytes."""
        with self.translate_errors("read", name):
            return self.fs.open(self.path(name), "rb")

    def put(self, name: str, data: bytes) -> None:
        """Writes an object atomically: a reader sees the old content or the new one, never a part."""
        path = self._writable_path(name)
        with self.translate_errors("write", name):
            if not self.is_local:
                self.fs.pipe_file(path, data)
                return
            with self._temporary_file(path) as temporary:
                _write_durable(temporary, data)
                os.replace(temporary, path)

    def create(self, name: str, data: bytes, *, scratch: Path | None = None) -> bool:
        """Writes an object only if none has that name. Returns False, and changes nothing, if one has.

        Args:
            scratch: where a local store writes the temporary file, on its own file system; absent: beside the object.
                Nothing is created once this folder has been removed, which is an error.
        """
        path = self._writable_path(name)
        try:
            with self.translate_errors("create", name), translate_refusal():
                if not self.is_local:
                    self.fs.pipe_file(path, data, mode="create")
                    return True
                try:
                    self._link(path, data, scratch)
                except FileNotFoundError:
                    # The lease's holder cleans up its folder once, and may have removed our temporary file.
                    self._link(path, data, scratch)
                return True
        except FileExistsError:
            # A request whose answer was lost is sent again, and finds the object that it created itself.
            return not self.is_local and self.read(name) == data

    def rewrite(self, name: str, data: bytes, is_own: Callable[[bytes], bool]) -> bool:
        """Changes an existing object if `is_own` accepts its content; never creates one. Returns False if not changed.

        An object that another process replaces or removes meanwhile is not changed: on local files the write goes into
        the file that was read, whatever has its name by then (so a reader may see a part of a change in length); on S3
        it is a conditional write. Object stores that know no `If-Match` leave a moment between the two.
        """
        path = self._writable_path(name)
        try:
            with self.translate_errors("update", name), translate_refusal():
                if self.is_local:
                    return rewrite_file(path, data, is_own)
                version = self.fs.info(path).get("ETag")
                if not is_own(self.fs.cat_file(path)):
                    return False
                condition = {"IfMatch": version} if version and "s3" in self.fs.protocol else {}
                try:
                    self.fs.pipe_file(path, data, **condition)
                except OSError as error:  # as in `create`, the refused request may be the second one
                    if not is_refusal(error) or self.fs.cat_file(path) != data:
                        raise
                return True
        except (FileNotFoundError, FileExistsError):
            return False

    def _link(self, path: str, data: bytes, scratch: Path | None) -> None:
        with self._temporary_file(path, scratch) as temporary:
            _write_durable(temporary, data)
            os.link(temporary, path)
        _sync_folder(path)

    def put_file(self, local: Path, name: str, *, replace: bool = True) -> bool:
        """Moves a finished local file into the store; its bytes are synced to disk before the rename.

        Args:
            replace: absent: an object of that name is replaced. False: it stays, `local` too, and False is returned.
        """
        path = self._writable_path(name)
        try:
            with self.translate_errors("write" if replace else "create", name), translate_refusal():
                if not self.is_local:
                    self.fs.put_file(str(local), path, mode="overwrite" if replace else "create")
                    os.unlink(local)
                    return True
                os.makedirs(os.path.dirname(path), exist_ok=True)
                _sync(local)
                try:
                    _move(local, path, replace)
                except OSError as error:
                    if error.errno != errno.EXDEV:
                        raise
                    with self._temporary_file(path) as temporary:  # from another file system
                        shutil.copyfile(local, temporary)
                        _sync(temporary)
                        _move(temporary, path, replace)
                    os.unlink(local)
                return True
        except FileExistsError:
            return False

    def copy_in(self, local: Path, name: str) -> None:
        """Copies a local file into an object store; it stays where it is."""
        with self.translate_errors("write", name), translate_refusal():
            self.fs.put_file(str(local), self._writable_path(name), mode="overwrite")

    def get_file(self, name: str, local: Path) -> None:
        """Copies an object to a local file."""
        try:
            with self.translate_errors("read", name):
                self.fs.get_file(self.path(name), str(local))
                if local.is_dir():  # fsspec makes one where the store has a folder
                    local.rmdir()
                    raise FileNotFoundError(errno.ENOENT, f"{self.where(name)} is a folder")
        except StoreError as error:
            cause = error.__cause__
            if self.is_local or not isinstance(cause, OSError) or cause.errno not in DISK_ERRORS:
                raise
            raise StoreError(f"store: cannot copy {self.where(name)} to {local}: {describe_os_error(cause)}") from cause

    def append(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Appends whole lines to a local object. Object stores get numbered parts instead: events.py.

        On a full disk part of a line may be written before the error; the next append starts a new line.
        """
        path = self.local_path(name)
        with self.translate_errors("write", name):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
            try:
                size = os.fstat(handle).st_size
                if size and os.pread(handle, 1, size - 1) != b"\n":
                    data = b"\n" + data
                while data:
                    data = data[os.write(handle, data) :]
                if durable:
                    os.fsync(handle)
            finally:
                os.close(handle)

    def files(self, prefix: str) -> list[str]:
        """Names of the objects directly below `prefix`, sorted. Not recursive."""
        base = self.path(prefix)
        try:
            with self.translate_errors("list", prefix):
                if self.is_local:
                    found = [entry.path for entry in os.scandir(base) if not entry.is_dir()]
                else:
                    entries = self.fs.ls(base, detail=True, refresh=True)
                    found = [entry["name"] for entry in entries if entry["type"] != "directory"]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return sorted(path[len(self.root) + 1 :] for path in found)

    def list(self, prefix: str) -> list[str]:
        """Names of all objects below `prefix`, sorted. Recursive."""
        try:
            with self.translate_errors("list", prefix):
                found = self._find(self.path(prefix)) if self.is_local else self.fs.find(self.path(prefix))
        except FileNotFoundError:
            return []
        return sorted(path[len(self.root) + 1 :] for path in found)

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly below `prefix`, sorted."""
        base = self.path(prefix)
        try:
            with self.translate_errors("list", prefix):
                if self.is_local:
                    found = [entry.path for entry in os.scandir(base) if entry.is_dir()]
                else:
                    entries = self.fs.ls(base, detail=True, refresh=True)
                    found = [entry["name"].rstrip("/") for entry in entries if entry["type"] == "directory"]
        except (FileNotFoundError, NotADirectoryError):
            return
        yield from sorted(path[len(self.root) + 1 :] for path in found)

    @staticmethod
    def _find(base: str) -> Sequence[str]:
        """All files below a local folder. fsspec's `find` would stat each file as well."""
        if os.path.isfile(base):
            return [base]
        return [os.path.join(folder, name) for folder, _, names in os.walk(base) for name in names]

    def remove(self, name: str) -> None:
        """Removes one object or a whole folder; does nothing if it does not exist."""
        path = self._writable_path(name)
        try:
            with self.translate_errors("remove", name):
                if _PATTERN.search(name) and not self.is_local:  # `rm` would expand it
                    for found in self.fs.find(path):
                        self.fs.rm_file(found)
                elif os.path.lexists(path) if self.is_local else self.fs.exists(path):
                    self.fs.rm(path, recursive=True)
        except FileNotFoundError:
            return

    @contextmanager
    def _temporary_file(self, path: str, scratch: Path | None = None) -> Iterator[str]:
        """The name of a temporary file in `scratch`, else beside `path`; removed at the end unless it was renamed."""
        folder, base = os.path.split(path)
        try:
            os.makedirs(folder, exist_ok=True)
        except FileExistsError as error:
            raise NotADirectoryError(errno.ENOTDIR, f"{folder} is a file") from error
        folder = os.fspath(scratch or folder)
        temporary = os.path.join(folder, f".{base}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            yield temporary
        finally:
            if os.path.exists(temporary):
                os.unlink(temporary)

    @contextmanager
    def translate_errors(self, verb: str, name: str) -> Iterator[None]:
        """Raises the file system's errors as StoreErrors that name operation, object and cause.

        FileNotFoundError passes (except for "write" and "create"), as does FileExistsError for "create" and "update".
        """
        try:
            yield
        except StoreError:
            raise
        except (FileNotFoundError, FileExistsError) as error:
            if verb in (("create", "update") if isinstance(error, FileExistsError) else _MAY_BE_MISSING):
                raise
            raise StoreError(f"store: cannot {verb} {self.where(name)}: {error}") from error
        except OSError as error:
            raise StoreError(f"store: cannot {verb} {self.where(name)}: {describe_os_error(error)}") from error
        except Exception as error:
            if self.is_local:
                raise
            # Object stores raise errors of their own: botocore's are not OSErrors, nor are all of aiohttp's.
            raise StoreError(
                f"store: cannot {verb} {self.where(name)}: {error}; check that the store is reachable (for s3:// "
                "AWS_ENDPOINT_URL and the credentials) and run again: finished work is kept"
            ) from error


DISK_ERRORS = {
    errno.ENOSPC: "free some space there and run again: finished work is kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run again: finished work is kept",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the disk reports an I/O error; check the disk",
    errno.EACCES: "this user lacks permission; change the permissions, or set HEADWATER_STORE to another store",
    errno.EPERM: "this user lacks permission; change the permissions, or set HEADWATER_STORE to another store",
}
"""What a user can do about disk errors, by `errno`."""

FULL_DISK_BYTES = 1 << 20
"""A disk with less free space than this counts as full."""


def describe_os_error(error: OSError) -> str:
    """The error's text, with what to do about it where that is known."""
    hint = DISK_ERRORS.get(error.errno or 0)
    return f"{error.strerror or error}; {hint}" if hint else str(error)


@contextmanager
def translate_disk_errors(kind: str, place: Path) -> Iterator[None]:
    """Raises errors that a full, read-only or failing disk caused as a StoreError that says so.

    Args:
        kind: the stage or object that was at work; the message begins with it.
        place: the folder that was written to, for errors that name no file.

    Raises:
        StoreError: in place of the original error, which is its cause.
    """
    try:
        yield
    except HeadwaterError:
        raise
    except Exception as error:
        description = describe_disk_error(error, place)
        if description is None:
            raise
        raise StoreError(f"{kind}: {description}") from error


def describe_disk_error(error: BaseException, place: Path) -> str | None:
    """A message for the user if the disk caused the error; None if it did not.

    Libraries lose the cause: numpy reports how many bytes it wrote, PyTorch a wrong position in its file. If the disk
    is full, that is taken to be the cause.
    """
    link: BaseException | None = error
    while link is not None:
        if isinstance(link, OSError) and link.errno in DISK_ERRORS:
            verb = "use" if link.errno in (errno.EACCES, errno.EPERM, errno.EIO) and link.filename else "write"
            return f"cannot {verb} {link.filename or place}: {describe_os_error(link)}"
        link = link.__cause__ or link.__context__
    existing = next(folder for folder in (place, *place.parents) if folder.exists())
    free = os.statvfs(existing)
    if free.f_bavail * free.f_frsize >= FULL_DISK_BYTES:
        return None
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return f"cannot write {place}: {describe_os_error(full)} ({' '.join(str(error).split())[:200]})"


def _move(source: str | Path, target: str, replace: bool) -> None:
    """Raises FileExistsError if there is a target that is not to be replaced. Nothing happens if the source is gone."""
    if replace:
        os.replace(source, target)
    else:
        os.link(source, target)
        _sync_folder(target)
        os.unlink(source)


def _write_durable(path: str, data: bytes) -> None:
    with open(path, "xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())


def _sync(path: str | Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(path: str) -> None:
    """A new directory entry is durable only when its folder is synced."""
    _sync(os.path.dirname(path))
