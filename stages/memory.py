"""Memory of this machine that can still be taken."""

from __future__ import annotations

import contextlib
from pathlib import Path

import psutil

CGROUPS = Path("/sys/fs/cgroup")


def available_memory() -> int:
    """Bytes that can still be taken: the machine's, or what is left to this container (cgroup v2) if that is less."""
    available = int(psutil.virtual_memory().available)
    with contextlib.suppress(OSError):
        own = next((line for line in Path("/proc/self/cgroup").read_text().splitlines() if line[:3] == "0::"), "0::/")
        folder = CGROUPS / own[3:].lstrip("/")
        for group in (folder, *folder.parents):
            if not group.is_relative_to(CGROUPS):
                break
            with contextlib.suppress(OSError, ValueError):  # not there at the root; "max" is no number
                limit = int((group / "memory.max").read_text())
                available = min(available, max(0, limit - _in_use(group)))
    return available


def _in_use(group: Path) -> int:
    """Bytes a cgroup holds on to; files' pages that can be dropped do not count."""
    used = int((group / "memory.current").read_text())
    for line in (group / "memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            used -= int(line.split()[1])
    return used
