"""The machine: cores, memory, disks, shared memory, open files, tools, clock. Standard library only: see `__main__`."""

from __future__ import annotations

import ctypes
import os
import re
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from infra.doctor.result import GIB, Check, Read, existing, size

SECOND_ENGINE_BYTES = 12 * GIB
"""With less left (the gateway's `two_engines_gib`) requests wait while a new champion replaces the old one."""

COMFORTABLE_BYTES, LEAST_BYTES, LEAST_LEFT_BYTES = 6 * GIB, 3 * GIB, 2 * GIB
INSTALL_BYTES = 8 * GIB
"""Both environments and what they are made from."""

LOW_DISK_BYTES, LEAST_DISK_BYTES, LEAST_FILES = 4 * GIB, GIB, 20_000
SHARED_MEMORY_BYTES = 512 << 20
"""Ray's object store takes half of this, vLLM's processes talk through the rest."""

SOCKET_PATH_BYTES = 107
"""Linux takes no longer name for a socket."""

_RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_RAY_FULL = 0.95
_UNSYNCHRONISED = 5
_EARLIEST, _LATEST = 1_767_225_600, 4_102_444_800
"""The years 2026 (before it this program was not there) and 2100."""


def cores(usable: int, read: Read) -> Check:
    """Cores that this process may use: its affinity, and the quota of its control groups."""
    quota = cpu_quota(read)
    if quota is not None and quota < usable:
        count, found = quota, f"{quota:.3g} of {usable} (limit of the control group)"
    else:
        count, found = float(usable), f"{usable}"
    if count < 2:
        return Check("cores", "warning", found, "give it at least 2 cores: two training workers share this, slowly")
    return Check("cores", "ok", found)


def cpu_quota(read: Read) -> float | None:
    """The smallest CPU quota of this process's control groups, in cores; None: no limit."""
    quotas = []
    for folder, version in control_groups(read, "cpu"):
        if version == 2:
            quota, _, period = (read(f"{folder}/cpu.max") or "max").strip().partition(" ")
        else:
            quota, period = read(f"{folder}/cpu.cfs_quota_us") or "", read(f"{folder}/cpu.cfs_period_us") or ""
        if quota.strip().isdigit() and period.strip().isdigit() and int(period):  # else "max" or -1
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def memory(read: Read) -> Check:
    """Memory of the machine or of the tightest control group, and what is left of it."""
    kib = {
        line.split(":")[0]: int(line.split()[1])
        for line in (read("/proc/meminfo") or "").splitlines()
        if len(line.split()) > 1 and line.split()[1].isdigit()
    }
    total, left, limited = kib.get("MemTotal", 0) * 1024, kib.get("MemAvailable", 0) * 1024, ""
    if not total:
        return Check("memory", "warning", "unknown: /proc/meminfo cannot be read", f"make sure of {size(6 * GIB)}")
    for folder, version in control_groups(read, "memory"):
        names = ("memory.max", "memory.current") if version == 2 else ("memory.limit_in_bytes", "memory.usage_in_bytes")
        limit, used = (_number(read(f"{folder}/{name}")) for name in names)
        if limit is None or limit >= total:
            continue
        # The page cache counts as used and gives way.
        cache = re.search(r"^(?:total_)?inactive_file (\d+)$", read(f"{folder}/memory.stat") or "", re.M)
        total, limited = limit, " (limit of the control group)"
        left = min(left, max(0, limit - (used or 0) + (int(cache[1]) if cache else 0)))
    found = f"{size(total)}{limited}, {size(left)} left"
    if total < LEAST_BYTES:
        return Check(
            "memory", "problem", found, f"services, training and engine need {size(COMFORTABLE_BYTES)} together"
        )
    if total < COMFORTABLE_BYTES:
        mend = f"{size(COMFORTABLE_BYTES)} is comfortable: end other programs, or train with `--set training.workers=1`"
        return Check("memory", "warning", found, mend)
    if left < LEAST_LEFT_BYTES:
        return Check("memory", "warning", found, "end other programs: an engine and two training workers need 2 GiB")
    engines = "room for two engines" if left >= SECOND_ENGINE_BYTES else "one engine at a time (two need 12 GiB left)"
    return Check("memory", "ok", f"{found}; {engines}")


def control_groups(read: Read, controller: str) -> Iterator[tuple[str, int]]:
    """Folders of the control groups that this process is in, with their version (1 or 2), up to the root."""
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


@dataclass(frozen=True)
class Place:
    """A folder that must have room, and the file system that it is (or would be made) on."""

    use: str
    path: str
    device: int
    total: int
    free: int
    files_left: int
    """Files that can still be made; -1 where the file system has no such limit."""


def place(use: str, path: str) -> Place:
    """Looks at the file system of a folder that may not be there yet."""
    there = existing(path)
    stat = os.statvfs(there)
    files_left = stat.f_favail if stat.f_files else -1
    return Place(
        use, there, os.stat(there).st_dev, stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize, files_left
    )


def disks(places: Sequence[Place], installed: bool) -> list[Check]:
    """One result a file system: is there room for what lies on it?"""
    checks = []
    # A size of 0 is none at all: no real disk; that nothing can be written there is told elsewhere.
    for device in dict.fromkeys(p.device for p in places if p.total):
        here = [p for p in places if p.device == device]
        first, uses = here[0], [p.use for p in here]
        found = f"{size(first.free)} of {size(first.total)} free for {', '.join(uses)} ({first.path})"
        # Environments are made where the repository is, from what is unpacked in the cache and the temporary folder.
        need = INSTALL_BYTES if "environments" in uses and not installed else LEAST_DISK_BYTES
        state, mend = "ok", ""
        if first.free < need:
            state = "problem"
            mend = f"free {size(need - first.free)} there{', which set-up needs' if need == INSTALL_BYTES else ''}"
            mend += (
                "; HEADWATER_HOME, HEADWATER_STORE and TMPDIR choose other disks; `headwater gc` removes old artifacts"
            )
        elif 0 <= first.files_left < LEAST_FILES:
            state, found = "problem", f"{found}, but only {first.files_left:,} more files"
            mend = "remove many small files there: the file system has no inodes left"
        elif first.free < LOW_DISK_BYTES and "temporary files" not in uses:
            state, mend = "warning", "a few runs will fill it; `headwater gc` removes what no ref reaches"
        elif "temporary files" in uses and first.free < (1 - _RAY_FULL) * first.total:
            state, mend = "warning", "free some: Ray writes nothing more to a disk that is 95 % full"
        elif first.free < LOW_DISK_BYTES:
            state, mend = "warning", "a few runs will fill it; free some, or let TMPDIR name another disk"
        checks.append(Check("disk", state, found, mend))
    return checks


def temporary_folder(environ: Mapping[str, str]) -> Check:
    """Is there one, and is its name short enough for Ray's sockets?"""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        return Check("temporary folder", "problem", str(error), "make /tmp writable, or set TMPDIR=/a/writable/folder")
    ray = environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp"
    return socket_room(folder, ray)


def socket_room(folder: str, ray: str) -> Check:
    """Ray makes sockets below its temporary folder, and does not start where their names get too long."""
    longest = SOCKET_PATH_BYTES - len(_RAY_SOCKET)
    if len(os.fsencode(ray)) > longest:
        found = f"{ray} is {len(os.fsencode(ray))} characters long; Ray's sockets leave room for {longest}"
        return Check("temporary folder", "problem", found, "export RAY_TMPDIR=/tmp, or a shorter TMPDIR")
    return Check("temporary folder", "ok", f"{folder}")


def writable(name: str, path: str, how: str) -> Check:
    """Makes and removes a file in a folder, or in the nearest one above it that is there."""
    there = existing(path)
    try:
        with tempfile.NamedTemporaryFile(dir=there, prefix=".headwater-doctor-") as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Check(name, "problem", f"{there}: {error.strerror or error}", how)
    return Check(name, "ok", f"{path}, writable" if there == path else f"{path}, not there yet; {there} is writable")


def shared_memory(total: int | None, free: int | None) -> Check:
    """/dev/shm, in which Ray keeps objects and vLLM's processes talk. None: there is none."""
    mend = "docker: `--shm-size=2g`; Kubernetes: an emptyDir with `medium: Memory` at /dev/shm; else remount it larger"
    if total is None or free is None:
        return Check("shared memory", "warning", "/dev/shm is not there", mend)
    found = f"{size(free)} of {size(total)} free in /dev/shm"
    return (
        Check("shared memory", "warning", found, mend)
        if free < SHARED_MEMORY_BYTES
        else Check("shared memory", "ok", found)
    )


def read_shared_memory() -> tuple[int | None, int | None]:
    """Size and free bytes of /dev/shm."""
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return None, None
    return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize


def open_files(soft: int, hard: int) -> Check:
    """How many files a process may hold open; Ray and vLLM raise the soft limit themselves."""
    infinite = resource.RLIM_INFINITY
    found = " of ".join("unlimited" if n == infinite else f"{n:,}" for n in (soft, hard)) + " at most (ulimit -n)"
    if hard != infinite and hard < 4096:
        mend = "raise the hard limit in /etc/security/limits.conf, `LimitNOFILE=` or `docker run --ulimit nofile=65536`"
        return Check("open files", "warning", found, mend)
    if soft != infinite and soft < 1024:
        return Check("open files", "warning", found, "`ulimit -n 4096` in this shell before the services are started")
    return Check("open files", "ok", found)


def tools(names: Sequence[str] = ("make", "bash", "flock", "sha256sum")) -> Check:
    """The programs that set-up calls."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        mend = (
            "install them: set-up needs make, bash, util-linux and coreutils (`apt-get install make bash util-linux`)"
        )
        return Check("tools", "problem", f"not found: {', '.join(missing)}", mend)
    return Check("tools", "ok", ", ".join(names))


def compiler(names: Sequence[str] = ("cc", "gcc", "clang")) -> Check:
    """What compiles the loops that training runs on a CPU."""
    found = [name for name in names if shutil.which(name)]
    if not found:
        mend = "on a GPU machine nothing; else install one (`apt-get install gcc`), or training takes a quarter longer"
        return Check("C compiler", "warning", f"none of {', '.join(names)}", mend)
    return Check("C compiler", "ok", found[0])


def clock(now: float, synchronised: bool | None, shared_store: bool) -> Check:
    """Is the time possible, and kept by somebody? What is shared with other machines rests on it."""
    date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    mend = "start chrony or systemd-timesyncd; in a virtual machine, let the host set the clock"
    if not _EARLIEST < now < _LATEST:
        return Check(
            "clock", "problem", f"{date} cannot be", f"set the clock: leases and signatures rest on it; {mend}"
        )
    if synchronised is None:
        return Check("clock", "ok", f"{date}; whether it is synchronised cannot be told here")
    if not synchronised and shared_store:
        found = f"{date}, not synchronised by NTP, and the store is shared with other machines"
        return Check("clock", "warning", found, mend)
    return Check("clock", "ok", f"{date}, {'' if synchronised else 'not '}synchronised by NTP")


def read_synchronised() -> bool | None:
    """What the kernel knows of its clock (adjtimex(2), reading only); None where it does not say."""
    buffer = ctypes.create_string_buffer(512)  # struct timex with its first field, `modes`, 0: nothing is set
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _UNSYNCHRONISED


def _number(text: str | None) -> int | None:
    return int(text) if text and text.strip().isdigit() else None
