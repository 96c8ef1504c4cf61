"""A small tmpfs: a disk that can be full, read-only, and be restored."""

from __future__ import annotations

import subprocess
from pathlib import Path

LARGE = 64 << 20
"""Bytes that are enough for every job of these tests."""


class SmallDisk:
    """A tmpfs mounted on a folder."""

    def __init__(self, folder: Path):
        self.folder = folder

    def mount(self, size: int = LARGE) -> None:
        self.folder.mkdir()
        self._call("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(self.folder))

    def resize(self, size: int) -> None:
        """Bytes; rounded up to whole pages of 4 KiB."""
        self._call("mount", "-o", f"remount,rw,size={size}", str(self.folder))

    def make_read_only(self) -> None:
        self._call("mount", "-o", "remount,ro", str(self.folder))

    def restore(self) -> None:
        """Writable, with room for everything."""
        self.resize(LARGE)

    def used(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_blocks * 512 for path in self.folder.rglob("*"))

    def unmount(self) -> None:
        self._call("umount", str(self.folder))

    @staticmethod
    def _call(*command: str) -> None:
        subprocess.run(command, check=True, capture_output=True, text=True)
