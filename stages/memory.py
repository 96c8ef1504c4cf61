"""Memory that this process may still allocate, and the control groups (cgroups) that bound it.

Importing this needs the standard library only: the doctor reads control groups before set-up.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

Read = Callable[[str], "str | None"]
"""The text of a file; None if it cannot be read."""


def read_text(path: str) -> str | None:
    """A `Read` of this machine's files."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return None


def available_memory(read: Read = read_text) -> int:
    """Bytes that can still be allocated: the machine's, or what this container's limit leaves if that is less."""
    import psutil

    left = [limit - used for limit, used in memory_limits(read)]
    return max(0, min([int(psutil.virtual_memory().available), *left]))


def memory_limits(read: Read = read_text) -> Iterator[tuple[int, int]]:
    """(limit, used) in bytes of every control group above this process that limits memory.

    Page cache that can be dropped does not count as used.
    """
    for folder, version in control_groups(read, "memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_number(read(f"{folder}/{name}")) for name in names)
        if limit is not None:
            cache = re.search(r"^(?:total_)?inactive_file (\d+)$", read(f"{folder}/memory.stat") or "", re.M)
            yield limit, (used or 0) - (int(cache[1]) if cache else 0)


def control_groups(read: Read, controller: str) -> Iterator[tuple[str, int]]:
    """Folders of the control groups that this process is in, up to the root, each with its version (1 or 2)."""
    for line in (read("/proc/self/cgroup") or "").splitlines():
        number, controllers, path = [*line.split(":", 2), "", ""][:3]
        if number == "0":
            base, version = "/sys/fs/cgroup", 2
        elif controller in controllers.split(","):
            base, version = f"/sys/fs/cgroup/{controller}", 1
        else:
            continue
        group = path.rstrip("/")
        while True:
            yield base + group, version
            if not group:
                break
            group = group.rpartition("/")[0]


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None
