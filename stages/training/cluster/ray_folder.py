"""A folder for the Ray of this process, and the token and certificate that lock it.

Ray puts sockets, logs and a shared key in a folder below /tmp that every user can write to. Ours is below a folder that
only this user can enter, new for each process. It is removed by the next process that starts a Ray after this one has
ended, so that the logs of a failure can be read.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import stat
import tempfile
from functools import cache
from pathlib import Path
from typing import NamedTuple

from stages.store.private_files import ensure_secret
from stages.training.cluster.ray_certificate import write_certificate

PREFIX = "headwater-ray-"
_IN_USE = "in-use"
"""Locked as long as the process lives that has the folder."""


class RayFolder(NamedTuple):
    """Where the Ray of this process has its files, and the worker groups on it."""

    root: Path
    """Only this user can enter it."""
    sessions: Path
    """For Ray's own; short, since the paths of its sockets may have 107 bytes."""
    settings: dict[str, str]
    """Variables by which Ray finds the token that every request to it needs, and its certificate."""


@cache
def ray_folder() -> RayFolder:
    """The folder of this process, with a new token; the same one at every call, since Ray reads the token once."""
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    remove_abandoned(base)
    private = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))  # with mode 700
    lock = os.open(private / _IN_USE, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)  # until this process ends
    token = private / "token"
    ensure_secret(token, "token of Ray")
    settings = {"RAY_AUTH_TOKEN_PATH": str(token), **write_certificate(private)}
    return RayFolder(private, private / "r", settings)


def remove_abandoned(base: Path) -> None:
    """Removes the folders below `base` of this user's processes that have ended."""
    for folder in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):  # another process removes it at the same time
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
                continue
            lock = os.open(folder / _IN_USE, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
