"""Walks a folder of this machine. Links are followed; only regular files are ever opened."""

from __future__ import annotations

import errno
import os
import stat

from stages.corpus.reading.unread import ignored_part, is_utf8

NOT_UTF8 = "name is not UTF-8"
NO_PERMISSION = "no permission to read"
_CONTAINS_ITSELF = "link to a folder that it lies in"
_READ_ALREADY = "link to a folder that is read already"
_ERRORS = {
    errno.EACCES: NO_PERMISSION,
    errno.EPERM: NO_PERMISSION,
    errno.ENOENT: "broken link",
    errno.ELOOP: "link loop",
}
"""Reasons by error number; any other error ends the walk."""


def walk(root: str) -> tuple[list[str], list[tuple[str, str]]]:
    """Regular files below a folder, and what else is there.

    A folder that several links lead to is read once, under its own name if it lies below `root`.

    Returns:
        Names relative to `root`, `/`-separated; and (reason, name) of everything that is not read. Of a folder that is
        not read only its own name is given, with `/` at its end.

    Raises:
        OSError: the root cannot be read, or a disk fails.
    """
    files: list[str] = []
    unread: list[tuple[str, str]] = []
    folders, links = [""], list[str]()
    seen = {_identity(os.stat(root))}
    while folders or links:
        if not folders:  # links come last: a folder's own name has precedence
            name = links.pop(0)
            reason = _why_not_followed(os.path.join(root, name), seen)
            if reason:
                unread.append((reason, f"{name}/"))
                continue
            folders.append(name)
        folder = folders.pop()
        try:
            entries = sorted(os.listdir(os.path.join(root, folder)))
        except OSError as error:
            if not folder or error.errno not in _ERRORS:
                raise
            unread.append((_ERRORS[error.errno], f"{folder}/"))
            continue
        for entry in entries:
            name = f"{folder}/{entry}" if folder else entry
            path = os.path.join(root, name)
            try:
                status = os.stat(path)
            except OSError as error:
                if error.errno not in _ERRORS:
                    raise
                unread.append((_ERRORS[error.errno], name))
                continue
            is_folder = stat.S_ISDIR(status.st_mode)
            ignored = ignored_part(entry)
            if ignored or not is_utf8(entry):
                unread.append((ignored[0] if ignored else NOT_UTF8, name + "/" * is_folder))
            elif is_folder and os.path.islink(path):
                links.append(name)
            elif is_folder and _identity(status) in seen:  # below a linked folder
                unread.append((_READ_ALREADY, f"{name}/"))
            elif is_folder:
                seen.add(_identity(status))
                folders.append(name)
            elif kind := describe_special(status.st_mode):
                unread.append((f"{kind}, not a regular file", name))
            else:
                files.append(name)
    return files, unread


def describe_special(mode: int) -> str:
    """What a file is that is not regular: opening one may wait for ever. Empty for regular files."""
    kinds = {stat.S_ISFIFO: "named pipe", stat.S_ISSOCK: "socket", stat.S_ISBLK: "device", stat.S_ISCHR: "device"}
    return next((kind for is_kind, kind in kinds.items() if is_kind(mode)), "")


def _why_not_followed(link: str, seen: set[tuple[int, int]]) -> str:
    """Empty for a link that is followed; its folder counts as seen then."""
    target, here = os.path.realpath(link), os.path.realpath(os.path.dirname(link))
    if os.path.commonpath((target, here)) == target:
        return _CONTAINS_ITSELF
    try:
        identity = _identity(os.stat(link))
    except OSError as error:  # it was there a moment ago
        if error.errno not in _ERRORS:
            raise
        return _ERRORS[error.errno]
    if identity in seen:
        return _READ_ALREADY
    seen.add(identity)
    return ""


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
