"""Checkpoints in this machine's memory: files on `/dev/shm`, which survive the processes that wrote them. Imports the
standard library only: the doctor looks here before set-up.

`{root}/headwater-{uid}/{run}/slot-{0,1}` are checkpoints in the one format; two, so that one is whole while the other
is written. Every process of the run holds a shared lock on `{run}/lock`: one that nobody holds was left over.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from stages.store.errors import StoreError

ROOT_VARIABLE = "HEADWATER_MEMORY_FOLDER"
"""Environment variable with another folder than `/dev/shm`, on a memory file system."""
SLOTS = ("slot-0", "slot-1")
LOCATION = "run.txt"
"""File with the place of the run, for people."""
_LOCK = "lock"
KEEP_SECONDS = 24 * 3600.0
"""What nobody has resumed after a day is removed by the next run on this machine, and by `headwater gc`."""


@dataclass(frozen=True)
class Leftover:
    """Checkpoints in memory that no process uses."""

    folder: Path
    run: str
    """Where the run is."""
    bytes: int
    age_seconds: float


def memory_root() -> Path:
    """This user's folder for checkpoints in memory."""
    return Path(os.environ.get(ROOT_VARIABLE) or "/dev/shm") / f"headwater-{os.geteuid()}"


def run_folder(where: str) -> Path:
    """The folder of a run's checkpoints in memory.

    Args:
        where: the place of the run's `checkpoints` folder, as path or URL.
    """
    return memory_root() / hashlib.sha256(where.encode()).hexdigest()[:16]


class MemoryFolder:
    """The folder of one run, in use by this process.

    Raises:
        StoreError: there is no such file system, or another user made the folder.
    """

    def __init__(self, where: str):
        self.path = run_folder(where)
        try:
            _make_own_folder(memory_root())
            while not self._enter():
                pass
            (self.path / LOCATION).unlink(missing_ok=True)  # never through a link
            (self.path / LOCATION).write_text(where)
            for slot in SLOTS:
                _make_own_folder(self.path / slot)
        except OSError as error:
            raise StoreError(f"no checkpoints in memory: {error}") from error

    def _enter(self) -> bool:
        """Locks the folder; False if it was removed meanwhile, as somebody's leftover."""
        _make_own_folder(self.path)
        try:
            self._lock = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return False
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        try:
            found = (self.path / _LOCK).stat()
            if os.path.samestat(found, os.fstat(self._lock)):
                return True
        except FileNotFoundError:
            pass
        os.close(self._lock)
        return False

    def free_bytes(self) -> int:
        """Room that is left on the file system."""
        found = os.statvfs(self.path)
        return found.f_bavail * found.f_frsize

    def close(self) -> None:
        """Leaves the files for the next attempt."""
        os.close(self._lock)


def remove_run(where: str) -> None:
    """Removes a run's checkpoints from this machine's memory: it has ended. Does nothing if there are none."""
    shutil.rmtree(run_folder(where), ignore_errors=True)


def leftovers() -> Iterator[Leftover]:
    """Checkpoints in memory that no process uses: of runs that were killed and not started again."""
    root = memory_root()
    if not _is_own_folder(root):
        return
    for folder in sorted(root.iterdir()):
        if not _is_own_folder(folder) or _in_use(folder):
            continue
        try:
            files = [path.stat() for path in folder.rglob("*") if path.is_file()]
            newest = max((found.st_mtime for found in files), default=folder.stat().st_mtime)
        except FileNotFoundError:  # another process removes it
            continue
        try:
            run = (folder / LOCATION).read_text(errors="replace")
        except FileNotFoundError:  # killed before it had written the file, or while it removed the folder
            run = "an unknown run"
        size = sum(found.st_size for found in files)
        yield Leftover(folder, run, size, time.time() - newest)


def remove_leftover(found: Leftover) -> bool:
    """Removes checkpoints that no process uses; False if one does by now: its run was started again."""
    lock = _lock_alone(found.folder)
    if lock is None:
        return False
    try:
        shutil.rmtree(found.folder, ignore_errors=True)  # under the lock: a run that starts now waits for it
    finally:
        if lock >= 0:
            os.close(lock)
    return True


def make_room(needed: int, own: Path) -> list[Leftover]:
    """Removes other runs' leftovers that are a day old, and as many more as are needed, oldest first.

    Args:
        needed: bytes that must be free on the file system, `own` apart.
    """
    removed = []
    for found in sorted(leftovers(), key=lambda found: -found.age_seconds):
        if found.folder == own:
            continue
        room = os.statvfs(own)
        due = found.age_seconds > KEEP_SECONDS or room.f_bavail * room.f_frsize < needed
        if due and remove_leftover(found):
            removed.append(found)
    return removed


def _in_use(folder: Path) -> bool:
    lock = _lock_alone(folder)
    if lock is not None and lock >= 0:
        os.close(lock)
    return lock is None


def _lock_alone(folder: Path) -> int | None:
    """A handle that holds the lock of a folder which nobody uses; -1 if it has no lock; None if somebody uses it."""
    try:
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return -1
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        return None
    return handle


def _make_own_folder(folder: Path) -> None:
    """Creates a folder for this user alone. Everybody may create folders on `/dev/shm`: one of another user is
    refused."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if not _is_own_folder(folder):
        raise PermissionError(f"{folder} is not a folder that only this user can enter; remove it")


def _is_own_folder(folder: Path) -> bool:
    try:
        found = folder.lstat()
    except FileNotFoundError:
        return False
    return stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not stat.S_IMODE(found.st_mode) & 0o077
