"""Checks of cores, memory, disks, shared memory, open files, tools and clock. Standard library only: see `__main__`."""

from __future__ import annotations

import ctypes
import os
import resource
import shlex
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from infra.doctor.result import GIB, Check, format_bytes, nearest_existing
from stages.memory import Read, control_groups, memory_limits
from stages.training.checkpoint.memory_tier import Leftover

SECOND_ENGINE_BYTES = 12 * GIB
"""With less available (the gateway's `two_engines_gib`) requests are queued while a new champion replaces the old."""

RECOMMENDED_MEMORY_BYTES, MIN_MEMORY_BYTES, MIN_AVAILABLE_BYTES = 6 * GIB, 3 * GIB, 2 * GIB
INSTALL_BYTES = 8 * GIB
"""Both environments, and the packages that they are installed from."""

LOW_DISK_BYTES, MIN_DISK_BYTES, MIN_INODES = 4 * GIB, GIB, 20_000
MIN_SHARED_MEMORY_BYTES = 512 << 20
"""Half of it for Ray's object store, the rest for vLLM's processes."""

MAX_SOCKET_PATH_BYTES = 107
"""Linux's limit for the path of a Unix socket."""

_RAY_SOCKET = "/ray/session_2026-01-01_00-00-00_000000_4194304/sockets/plasma_store"
_RAY_MAX_DISK_USAGE = 0.95
"""Ray writes nothing to a disk that is fuller."""
_TIME_ERROR = 5
"""State of adjtimex(2) for a clock that is not synchronised."""
_EARLIEST, _LATEST = 1_767_225_600, 4_102_444_800
"""The years 2026 (this program is not older) and 2100."""


def check_cores(usable: int, read: Read) -> Check:
    """Cores that this process may use: its CPU affinity and the quota of its control groups."""
    quota = cpu_quota(read)
    if quota is not None and quota < usable:
        count, found = quota, f"{quota:.3g} of {usable} (limit of the control group)"
    else:
        count, found = float(usable), f"{usable}"
    if count < 2:
        return Check("cores", "warning", found, "use at least 2 cores: two training workers share them, slowly")
    return Check("cores", "ok", found)


def cpu_quota(read: Read) -> float | None:
    """The smallest CPU quota of this process's control groups, in cores; None: no quota."""
    quotas = []
    for folder, version in control_groups(read, "cpu"):
        if version == 2:
            quota, _, period = (read(f"{folder}/cpu.max") or "max").strip().partition(" ")
        else:
            quota, period = read(f"{folder}/cpu.cfs_quota_us") or "", read(f"{folder}/cpu.cfs_period_us") or ""
        if quota.strip().isdigit() and period.strip().isdigit() and int(period):  # else "max" or -1
            quotas.append(int(quota) / int(period))
    return min(quotas, default=None)


def check_memory(read: Read) -> Check:
    """Total and available memory, of the machine or of the control group with the lowest limit."""
    kib = {
        line.split(":")[0]: int(line.split()[1])
        for line in (read("/proc/meminfo") or "").splitlines()
        if len(line.split()) > 1 and line.split()[1].isdigit()
    }
    total, left, limited = kib.get("MemTotal", 0) * 1024, kib.get("MemAvailable", 0) * 1024, ""
    recommended = format_bytes(RECOMMENDED_MEMORY_BYTES)
    if not total:
        found, remedy = "unknown: /proc/meminfo cannot be read", f"make sure that the machine has {recommended}"
        return Check("memory", "warning", found, remedy)
    for limit, used in memory_limits(read):
        if limit < total:
            total, limited = limit, " (limit of the control group)"
            left = min(left, max(0, limit - used))
    found = f"{format_bytes(total)}{limited}, {format_bytes(left)} available"
    if total < MIN_MEMORY_BYTES:
        return Check("memory", "problem", found, f"services, training and engine together need {recommended}")
    if total < RECOMMENDED_MEMORY_BYTES:
        remedy = f"{recommended} are recommended: stop other programs, or `--set training.parallelism.workers=1`"
        return Check("memory", "warning", found, remedy)
    if left < MIN_AVAILABLE_BYTES:
        return Check("memory", "warning", found, "stop other programs: an engine and two training workers need 2 GiB")
    two = left >= SECOND_ENGINE_BYTES
    engines = "enough for two engines" if two else "one engine at a time (two need 12 GiB available)"
    return Check("memory", "ok", f"{found}; {engines}")


@dataclass(frozen=True)
class DiskUse:
    """A folder that needs disk space, and the file system that it is (or would be created) on."""

    use: str
    path: str
    device: int
    total: int
    free: int
    free_inodes: int
    """-1: the file system has no limit."""


def read_disk_use(use: str, path: str) -> DiskUse:
    """The file system of a folder, which need not exist yet."""
    folder = nearest_existing(path)
    stat = os.statvfs(folder)
    total, free = stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize
    free_inodes = stat.f_favail if stat.f_files else -1
    return DiskUse(use, folder, os.stat(folder).st_dev, total, free, free_inodes)


def check_disks(uses: Sequence[DiskUse], installed: bool) -> list[Check]:
    """Free space and inodes; one result per file system.

    Args:
        installed: both environments exist, so that no space is needed for them.
    """
    checks = []
    # A size of 0 means a virtual file system; `check_writable` reports if the folder cannot be written.
    for device in dict.fromkeys(use.device for use in uses if use.total):
        same = [use for use in uses if use.device == device]
        first, names = same[0], [use.use for use in same]
        found = f"{format_bytes(first.free)} of {format_bytes(first.total)} free for {', '.join(names)} ({first.path})"
        # The environments are inside the repository.
        need = INSTALL_BYTES if "environments" in names and not installed else MIN_DISK_BYTES
        state, remedy = "ok", ""
        if first.free < need:
            state = "problem"
            remedy = f"free {format_bytes(need - first.free)}"
            remedy += " for the installation" if need == INSTALL_BYTES else ""
            remedy += "; or use other disks (HEADWATER_HOME, HEADWATER_STORE, TMPDIR); `headwater gc` removes artifacts"
        elif 0 <= first.free_inodes < MIN_INODES:
            state, found = "problem", f"{found}, but only {first.free_inodes:,} inodes"
            remedy = "remove many small files: the file system has too few inodes left"
        elif first.free < LOW_DISK_BYTES and "temporary files" not in names:
            state, remedy = "warning", "a few runs will fill it; `headwater gc` removes artifacts that no ref reaches"
        elif "temporary files" in names and first.free < (1 - _RAY_MAX_DISK_USAGE) * first.total:
            state, remedy = "warning", "free some space: Ray does not write to a disk that is more than 95 % full"
        elif first.free < LOW_DISK_BYTES:
            state, remedy = "warning", "a few runs will fill it; free some space, or set TMPDIR to another disk"
        checks.append(Check("disk", state, found, remedy))
    return checks


def check_temporary_folder(environ: Mapping[str, str]) -> Check:
    """Whether there is one, with a path short enough for Ray's sockets."""
    try:
        folder = tempfile.gettempdir()
    except FileNotFoundError as error:
        return Check("temporary folder", "problem", str(error), "make /tmp writable, or set TMPDIR=/a/writable/folder")
    ray = environ.get("RAY_TMPDIR") or environ.get("TMPDIR") or "/tmp"
    return check_socket_paths(folder, ray)


def check_socket_paths(folder: str, ray: str) -> Check:
    """Ray creates sockets below its temporary folder, and does not start if their paths are too long."""
    longest = MAX_SOCKET_PATH_BYTES - len(_RAY_SOCKET)
    if len(os.fsencode(ray)) > longest:
        found = f"{ray} is {len(os.fsencode(ray))} bytes long; Ray's sockets allow {longest}"
        return Check("temporary folder", "problem", found, "export RAY_TMPDIR=/tmp, or a shorter TMPDIR")
    return Check("temporary folder", "ok", f"{folder}")


def check_writable(name: str, path: str, remedy: str) -> Check:
    """Creates and removes a file in a folder, or in its nearest parent that exists."""
    folder = nearest_existing(path)
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".headwater-doctor-") as probe:
            probe.write(b"probe")
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return Check(name, "problem", f"{folder}: {error.strerror or error}", remedy)
    found = f"{path}, writable" if folder == path else f"{path}, does not exist yet; {folder} is writable"
    return Check(name, "ok", found)


def check_shared_memory(total: int | None, free: int | None) -> Check:
    """/dev/shm, used by Ray's object store and between vLLM's processes. None: it does not exist."""
    remedy = (
        "docker: `--shm-size=2g`; Kubernetes: an emptyDir with `medium: Memory` at /dev/shm; else remount it larger"
    )
    if total is None or free is None:
        return Check("shared memory", "warning", "/dev/shm does not exist", remedy)
    found = f"{format_bytes(free)} of {format_bytes(total)} free in /dev/shm"
    return (
        Check("shared memory", "warning", found, remedy)
        if free < MIN_SHARED_MEMORY_BYTES
        else Check("shared memory", "ok", found)
    )


def read_shared_memory() -> tuple[int | None, int | None]:
    """Size and free bytes of /dev/shm; None: it does not exist."""
    try:
        stat = os.statvfs("/dev/shm")
    except OSError:
        return None, None
    return stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize


def check_memory_checkpoints(left: Iterable[Leftover]) -> list[Check]:
    """Whether checkpoints in memory were left behind by runs that were killed: they take memory until then."""
    name = "memory checkpoints"
    checks = [
        Check(
            name,
            "warning",
            f"{format_bytes(found.bytes)} in {found.folder} of {found.run}, {found.age_seconds / 3600:.1f} hours old, "
            "used by no process",
            "start that run again: it resumes from them and removes them at its end; when a day old, the next run or "
            f"`headwater gc` removes them; if nobody will resume it, `rm -r {shlex.quote(str(found.folder))}`",
        )
        for found in left
    ]
    return checks or [Check(name, "ok", "none of a run that was killed")]


def check_open_files(soft: int, hard: int) -> Check:
    """Limits of open files per process; Ray and vLLM raise the soft limit themselves."""
    infinite = resource.RLIM_INFINITY
    found = " of ".join("unlimited" if n == infinite else f"{n:,}" for n in (soft, hard)) + " at most (ulimit -n)"
    if hard != infinite and hard < 4096:
        remedy = (
            "raise the hard limit in /etc/security/limits.conf, `LimitNOFILE=` or `docker run --ulimit nofile=65536`"
        )
        return Check("open files", "warning", found, remedy)
    if soft != infinite and soft < 1024:
        return Check("open files", "warning", found, "`ulimit -n 4096` in this shell before you start the services")
    return Check("open files", "ok", found)


def check_tools(names: Sequence[str] = ("make", "bash", "flock", "sha256sum")) -> Check:
    """The programs that set-up needs."""
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        remedy = (
            "install them: set-up needs make, bash, util-linux and coreutils (`apt-get install make bash util-linux`)"
        )
        return Check("tools", "problem", f"not found: {', '.join(missing)}", remedy)
    return Check("tools", "ok", ", ".join(names))


def check_compiler(names: Sequence[str] = ("cc", "gcc", "clang")) -> Check:
    """A C compiler, for the kernels of training on a CPU."""
    found = [name for name in names if shutil.which(name)]
    if not found:
        remedy = (
            "install one (`apt-get install gcc`): training on a CPU takes 25 % longer without; not needed with a GPU"
        )
        return Check("C compiler", "warning", f"none of {', '.join(names)}", remedy)
    return Check("C compiler", "ok", found[0])


def check_clock(now: float, synchronised: bool | None, shared_store: bool) -> Check:
    """Whether the time is plausible and synchronised: leases and signed requests depend on it."""
    date = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
    remedy = "start chrony or systemd-timesyncd; in a virtual machine, let the host set the clock"
    if not _EARLIEST < now < _LATEST:
        return Check(
            "clock", "problem", f"{date} is wrong", f"set the clock: leases and signatures depend on it; {remedy}"
        )
    if synchronised is None:
        return Check("clock", "ok", f"{date}; unknown whether it is synchronised")
    if not synchronised and shared_store:
        found = f"{date}, not synchronised by NTP, and the store is shared with other machines"
        return Check("clock", "warning", found, remedy)
    return Check("clock", "ok", f"{date}, {'' if synchronised else 'not '}synchronised by NTP")


def read_clock_synchronised() -> bool | None:
    """Whether the kernel's clock is synchronised (adjtimex(2), read only); None: unknown."""
    buffer = ctypes.create_string_buffer(512)  # struct timex with its first field, `modes`, 0: nothing is set
    try:
        state = ctypes.CDLL(None).adjtimex(buffer)
    except (OSError, AttributeError):
        return None
    return None if state < 0 else state != _TIME_ERROR
