"""The artifact store: any fsspec URL, and the only module that may rename, append or create exclusively.

Object stores can neither rename nor append, so nothing outside this module assumes either. `put` replaces an object
as a whole, `create` makes one only if it is not there yet; on local files the first is write-aside-and-rename and the
second is link-into-place, which fails if the name exists (a plain `O_EXCL` open could leave half an object behind).
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from stages.artifact.errors import StoreError


class Store:
    """A folder tree at an fsspec URL. Names are relative, `/`-separated, and never leave the root."""

    def __init__(self, url: str | os.PathLike[str]):
        text = os.fspath(url)
        if "://" not in text and not os.path.isabs(text):
            raise StoreError(f"store: {text!r} is a relative path; give an absolute path or a URL")
        try:
            self.fs, self.root = fsspec.core.url_to_fs(text)
        except (ImportError, ValueError) as error:
            raise StoreError(f"store: {text!r} cannot be opened: {error}") from error
        self.root = self.root.rstrip("/")
        self.url = self.fs.unstrip_protocol(self.root)
        self.is_local = isinstance(self.fs, LocalFileSystem)

    def path(self, name: str) -> str:
        """The file system's own path of `name`."""
        if name.startswith("/") or ".." in name.split("/"):
            raise StoreError(f"store: {name!r} is not a name inside the store")
        return f"{self.root}/{name}" if name else self.root

    def local_path(self, name: str) -> Path:
        """`name` as a local file. Only for stores on local files."""
        if not self.is_local:
            raise StoreError(f"store: {self.url} is not on local files")
        return Path(self.path(name))

    def exists(self, name: str) -> bool:
        return bool(self.fs.exists(self.path(name)))

    def size(self, name: str) -> int | None:
        """Bytes of an object, None if there is none."""
        try:
            return int(self.fs.size(self.path(name)))
        except FileNotFoundError:
            return None

    def read(self, name: str) -> bytes:
        try:
            return bytes(self.fs.cat_file(self.path(name)))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"store: cannot read {self.path(name)}: {error}") from error

    def read_json(self, name: str) -> Any:
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise StoreError(f"store: {self.path(name)} is not valid JSON: {error}") from error

    def put(self, name: str, data: bytes) -> None:
        """Writes an object as a whole; a reader sees the old one or the new one, never a part."""
        path = self.path(name)
        try:
            if self.is_local:
                aside = self._aside(path)
                _write_durable(aside, data)
                os.replace(aside, path)
            else:
                self.fs.pipe_file(path, data)
        except OSError as error:
            raise StoreError(f"store: cannot write {path}: {error}") from error

    def create(self, name: str, data: bytes) -> bool:
        """Writes an object only if there is none of that name. False: there is one already, and it was left alone."""
        path = self.path(name)
        try:
            if self.is_local:
                aside = self._aside(path)
                _write_durable(aside, data)
                try:
                    os.link(aside, path)
                finally:
                    os.unlink(aside)
            else:
                self.fs.pipe_file(path, data, mode="create")
            return True
        except FileExistsError:
            return False
        except OSError as error:
            raise StoreError(f"store: cannot write {path}: {error}") from error

    def put_file(self, local: Path, name: str) -> None:
        """Moves a finished local file into the store."""
        path = self.path(name)
        try:
            if self.is_local:
                os.makedirs(os.path.dirname(path), exist_ok=True)
                try:
                    os.replace(local, path)
                except OSError:  # another file system: copy aside, then rename
                    aside = self._aside(path)
                    shutil.copyfile(local, aside)
                    os.replace(aside, path)
                    os.unlink(local)
            else:
                self.fs.put_file(str(local), path)
                os.unlink(local)
        except OSError as error:
            raise StoreError(f"store: cannot write {path}: {error}") from error

    def append(self, name: str, data: bytes, *, durable: bool = False) -> None:
        """Adds bytes at the end of a local object in one write. Object stores get numbered parts instead: events.py."""
        path = self.local_path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, data)
            if durable:
                os.fsync(handle)
        finally:
            os.close(handle)

    def list(self, prefix: str) -> list[str]:
        """Names of all objects below `prefix`, sorted."""
        base = self.path(prefix)
        try:
            found = self.fs.find(base)
        except FileNotFoundError:
            return []
        return sorted(path[len(self.root) + 1 :] for path in found)

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly below `prefix`, sorted."""
        try:
            entries = self.fs.ls(self.path(prefix), detail=True, refresh=True)
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in sorted(entries, key=lambda item: item["name"]):
            if entry["type"] == "directory":
                yield entry["name"].rstrip("/")[len(self.root) + 1 :]

    def remove(self, name: str) -> None:
        """Removes one object or a whole folder; a missing one is fine."""
        path = self.path(name)
        if self.fs.exists(path):
            self.fs.rm(path, recursive=True)

    def _aside(self, path: str) -> str:
        folder, base = os.path.split(path)
        os.makedirs(folder, exist_ok=True)
        return os.path.join(folder, f".{base}.{os.getpid()}-{secrets.token_hex(4)}.tmp")


def _write_durable(path: str, data: bytes) -> None:
    with open(path, "xb") as handle:
        handle.write(data)
        handle.flush()
        os.fsync(handle.fileno())
