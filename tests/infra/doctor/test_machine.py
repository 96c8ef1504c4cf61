"""Checks of the machine, without faking one: every bad case is a value that is passed in."""

from __future__ import annotations

from pathlib import Path

import pytest

from infra.doctor import machine
from infra.doctor.result import GIB
from stages.training.checkpoint.memory_tier import Leftover

MEMORY = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {left} kB\n"


def reader(files: dict[str, str]):
    return files.get


def meminfo(total_gib: float, left_gib: float) -> dict[str, str]:
    return {"/proc/meminfo": MEMORY.format(total=int(total_gib * 2**20), left=int(left_gib * 2**20))}


@pytest.mark.parametrize(
    ("usable", "files", "state", "found"),
    [
        (8, {}, "ok", "8"),
        (1, {}, "warning", "1"),
        (8, {"/proc/self/cgroup": "0::/a/b\n", "/sys/fs/cgroup/a/cpu.max": "150000 100000\n"}, "warning", "1.5 of 8"),
        (8, {"/proc/self/cgroup": "0::/\n", "/sys/fs/cgroup/cpu.max": "max 100000\n"}, "ok", "8"),
        (
            8,
            {
                "/proc/self/cgroup": "3:cpu,cpuacct:/x\n0::/\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_quota_us": "400000\n",
                "/sys/fs/cgroup/cpu/x/cpu.cfs_period_us": "100000\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "/sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            "ok",
            "4 of 8",
        ),
    ],
)
def test_cores(usable: int, files: dict[str, str], state: str, found: str) -> None:
    check = machine.check_cores(usable, reader(files))
    assert check.state == state and check.found.startswith(found)


@pytest.mark.parametrize(
    ("files", "state", "found"),
    [
        (meminfo(64, 50), "ok", "enough for two engines"),
        (meminfo(8, 6), "ok", "one engine at a time"),
        (meminfo(64, 10), "ok", "one engine at a time"),
        (meminfo(8, 1), "warning", "1.0 GiB available"),
        (meminfo(4, 3), "warning", "4.0 GiB"),
        (meminfo(2, 1.5), "problem", "2.0 GiB"),
        ({}, "warning", "unknown"),
        (
            {
                **meminfo(64, 50),
                "/proc/self/cgroup": "0::/job\n",
                "/sys/fs/cgroup/job/memory.max": f"{8 * GIB}\n",
                "/sys/fs/cgroup/job/memory.current": f"{7 * GIB}\n",
                "/sys/fs/cgroup/job/memory.stat": f"anon 1\ninactive_file {2 * GIB}\n",
            },
            "ok",
            "8.0 GiB (limit of the control group), 3.0 GiB available; one engine",
        ),
    ],
)
def test_memory(files: dict[str, str], state: str, found: str) -> None:
    check = machine.check_memory(reader(files))
    assert check.state == state and found in check.found and bool(check.remedy) == (state != "ok")


@pytest.mark.parametrize(
    ("free", "installed", "state"), [(50, False, "ok"), (6, False, "problem"), (6, True, "ok"), (0.5, True, "problem")]
)
def test_disk(free: float, installed: bool, state: str) -> None:
    uses = [machine.DiskUse(use, "/", 1, 60 * GIB, int(free * GIB), 10**6) for use in ("environments", "store")]
    [check] = machine.check_disks(uses, installed)
    assert check.state == state and "environments, store (/)" in check.found


def test_each_file_system_has_one_result() -> None:
    uses = [
        machine.DiskUse("environments", "/", 1, 100 * GIB, 50 * GIB, 10**6),
        machine.DiskUse("store", "/data", 2, 100 * GIB, 50 * GIB, 12),
        machine.DiskUse("temporary files", "/tmp", 3, 1000 * GIB, 20 * GIB, -1),
        machine.DiskUse("nothing", "/proc", 4, 0, 0, -1),
    ]
    assert [check.state for check in machine.check_disks(uses, True)] == ["ok", "problem", "warning"]


def test_shared_memory_open_files_tools_and_sockets() -> None:
    assert machine.check_shared_memory(2 * GIB, 2 * GIB).state == "ok"
    assert "--shm-size" in machine.check_shared_memory(64 << 20, 64 << 20).remedy
    assert machine.check_shared_memory(None, None).state == "warning"
    limits = [(1024, 2**20), (256, 2**20), (1024, 1024), (-1, -1)]
    assert [machine.check_open_files(*pair).state for pair in limits] == [
        "ok", "warning", "warning", "ok",
    ]  # fmt: skip
    assert machine.check_tools(["sh", "no-such-program"]).found == "not found: no-such-program"
    assert machine.check_compiler(["no-such-program", "sh"]).found == "sh"
    assert machine.check_compiler(["no-such-program"]).state == "warning"
    assert machine.check_socket_paths("/tmp", "/tmp").state == "ok"
    assert "RAY_TMPDIR" in machine.check_socket_paths("/tmp", "/var/folders/" + "x" * 40).remedy


@pytest.mark.parametrize(
    ("now", "synchronised", "shared", "state"),
    [
        (1.8e9, True, True, "ok"),
        (1.8e9, False, True, "warning"),
        (1.8e9, False, False, "ok"),
        (1.8e9, None, True, "ok"),
        (0.0, True, False, "problem"),
        (9e9, True, False, "problem"),
    ],
)
def test_clock(now: float, synchronised: bool | None, shared: bool, state: str) -> None:
    assert machine.check_clock(now, synchronised, shared).state == state


def test_a_state_folder_that_is_not_writable() -> None:
    assert machine.check_writable("state folder", "/proc/headwater/home", "elsewhere").state == "problem"


def test_the_check_does_not_create_the_state_folder(tmp_path: Path) -> None:
    assert machine.check_writable("state folder", str(tmp_path / "a" / "b"), "elsewhere").state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_memory_checkpoints() -> None:
    folder = Path("/dev/shm/headwater-0/one two")
    left = [Leftover(folder, "/store/training/a/checkpoints", 3 * GIB, 7200.0)]
    (check,) = machine.check_memory_checkpoints(left)
    assert check.state == "warning"
    assert "3.0 GiB" in check.found and "/store/training/a/checkpoints" in check.found and "2.0 hours" in check.found
    assert "resumes from them" in check.remedy and f"`rm -r '{folder}'`" in check.remedy
    assert len(machine.check_memory_checkpoints(left * 2)) == 2
    assert [check.state for check in machine.check_memory_checkpoints([])] == ["ok"]
