"""Names that come from a store: file paths, folders, digests. All are checked here, where they enter.

Whoever can write to a store can write any manifest, ref, lease or deployment record there. Their names become paths on
this machine (the cache, the scratch folder, the store itself), so each record is parsed into a typed model whose fields
are checked by the functions below (`stages.store.fields`), and no other code builds a path from a record.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

from stages.store.errors import StoreError

FOLDER = re.compile(r"([A-Za-z][A-Za-z0-9_-]*)/([0-9a-f]{16}(?:-[0-9a-f]{8})?)")
"""Names of artifact folders: `{kind}/{fingerprint:16}[-{run:8}]`."""
_PLAIN_FOLDER = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,254}/[A-Za-z0-9][A-Za-z0-9_-]{0,254}")
MAX_COMPONENT_BYTES = 255
"""Longest file name of usual file systems."""
MAX_PATH_BYTES = 1024
"""Longest key of S3."""


def check_printable(text: str) -> str:
    """`text`, refused if it holds line ends, NUL, escape sequences or anything else that a terminal does not show.

    Raises:
        ValueError: it does, or is longer than a name may be.
    """
    if not text.isprintable() or len(text.encode()) > MAX_PATH_BYTES:
        raise ValueError(f"{text[:100]!r} has characters that cannot be printed, or more than {MAX_PATH_BYTES} bytes")
    return text


def check_file_path(path: str) -> str:
    """`path`, refused unless it is a plain relative path, `/`-separated, that means the same on every machine.

    Raises:
        ValueError: it is absolute, empty or too long, or has a component such as `..` or a character such as `\\`.
    """
    check_printable(path)
    parts = path.split("/")
    if any(part in ("", ".", "..") for part in parts):
        raise ValueError(f"{path!r} is not a relative path inside its folder")
    if "\\" in path or ":" in parts[0][1:2]:  # separators and drive letters of Windows
        raise ValueError(f"{path!r} has a backslash or a drive letter")
    if max(len(part.encode()) for part in parts) > MAX_COMPONENT_BYTES:
        raise ValueError(f"{path[:100]!r}… has a component of more than {MAX_COMPONENT_BYTES} bytes")
    return path


def check_file_name(name: str) -> str:
    """`name`, refused unless it is one component of a path: see `check_file_path`."""
    if "/" in name:
        raise ValueError(f"{name!r} is not a file name")
    return check_file_path(name)


def is_folder(name: str) -> bool:
    """True if `name` can be that of an artifact's folder: see `check_folder`."""
    return bool(_PLAIN_FOLDER.fullmatch(name))


def check_folder(name: str) -> str:
    """`name`, refused unless it can be that of an artifact's folder: two components of ASCII letters, digits, `_`, `-`.

    Raises:
        ValueError: it cannot.
    """
    if not is_folder(name):
        raise ValueError(f"{name[:100]!r} is not the name of an artifact's folder")
    return name


def check_distinct(paths: Iterable[str]) -> None:
    """Refuses paths that cannot be files of one folder. Two that differ only in case can, on most file systems.

    Raises:
        ValueError: two are equal, in Unicode's normal form too; or one is a file and the folder of another.
    """
    files: set[str] = set()
    for path in paths:
        normal = unicodedata.normalize("NFC", path)
        if normal in files:
            raise ValueError(f"file {path!r} is listed twice")
        files.add(normal)
    for path in files:
        folder = path
        while cut := folder.rpartition("/")[0]:
            folder = cut
            if folder in files:
                raise ValueError(f"{folder!r} is listed as a file and as the folder of {path!r}")


def refuse_links(root: str | os.PathLike[str], path: str | os.PathLike[str]) -> Path:
    """`path`, refused if a link on the way from `root` leads out of it. Neither has to exist.

    Raises:
        StoreError: it does; names where it leads.
    """
    real_root, real = os.path.realpath(root), os.path.realpath(path)
    if real != real_root and not real.startswith(real_root.rstrip("/") + "/"):
        raise StoreError(f"store: {os.fspath(path)} leads to {real}, outside of {real_root}; remove the link")
    return Path(path)
