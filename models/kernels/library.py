"""Compiles `cpu.c` once for this machine, and calls it. Without a compiler, PyTorch's operators are used instead."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

SOURCE = Path(__file__).with_name("cpu.c")
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-math-errno", "-fno-trapping-math", "-fPIC", "-shared")
FORMATS = {torch.float32: (), torch.bfloat16: ("-DBF16",)}
OFF = "HEADWATER_KERNELS"
"""Environment variable; `off`: use PyTorch's operators only."""


class Library:
    """The compiled loops for one number format; a loop is called by name with tensors, numbers and None.

    Tensors must be contiguous and on the CPU: only their addresses are passed.
    """

    def __init__(self, path: Path):
        self._loaded = ctypes.CDLL(str(path))

    def __call__(self, name: str, *arguments: Tensor | float | int | None) -> None:
        getattr(self._loaded, name)(ctypes.c_int64(threads()), *map(_ctypes_value, arguments))


def threads() -> int:
    """Threads that share the rows of a loop: PyTorch's number. Per-thread buffers have this many parts."""
    return torch.get_num_threads()


def library(dtype: torch.dtype) -> Library | None:
    """The loops for a number format; None without a compiler, on another system, or when switched off."""
    return _library(dtype) if os.environ.get(OFF) != "off" else None


def kernels(x: Tensor) -> Library | None:
    """The loops for tensors like x; None: use PyTorch's operators."""
    return library(x.dtype) if x.device.type == "cpu" and x.dtype in FORMATS else None


def unavailable_reason() -> str:
    """Why compiled loops are not available; empty if they are."""
    if os.environ.get(OFF) == "off":
        return f"{OFF}=off"
    return _compiled(torch.float32)[1]


@functools.cache
def _library(dtype: torch.dtype) -> Library | None:
    path, _ = _compiled(dtype)
    return Library(path) if path else None


@functools.cache
def _compiled(dtype: torch.dtype) -> tuple[Path | None, str]:
    """The path of the shared library, or None and the reason."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    openmp = _openmp()
    if compiler is None or openmp is None:
        return None, "no C compiler (cc, gcc or clang)" if openmp else "PyTorch runs without OpenMP on this machine"
    command = [*FLAGS, *FORMATS[dtype], str(SOURCE), "-lm", str(openmp)]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    # The name contains the processor's flags (-march=native): different machines may share a home folder.
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")][:1]
    parts = (SOURCE.read_bytes(), repr(command).encode(), version, repr(processor).encode())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    path = next((path for folder in _folders() if (path := folder / f"{name}.so").exists()), None)
    if path:
        return path, ""
    failure = ""
    for folder in _folders():
        try:
            return _compile([compiler, *command], folder / f"{name}.so")
        except OSError as error:  # read-only, or full
            failure = f"{failure}; {error}" if failure else f"cannot write the compiled library: {error}"
    return None, failure


def _compile(command: list[str], path: Path) -> tuple[Path | None, str]:
    """Compiles the library and renames it to its final path, so that a process never loads a partial file."""
    for above in (path.parent.parent, path.parent):
        above.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        compiled = Path(folder) / path.name
        done = subprocess.run([*command, "-o", str(compiled)], capture_output=True, text=True, check=False)
        if done.returncode:
            last_line = done.stderr.strip().splitlines()[-1:]
            return None, f"{command[0]} could not compile {SOURCE.name}: {''.join(last_line) or done.returncode}"
        compiled.rename(path)
    return path, ""


def _folders() -> list[Path]:
    """Folders for compiled loops: `__pycache__` beside the source, else the user's cache. Nobody else may have write
    access to them, since their content is loaded as code."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [SOURCE.parent / "__pycache__", Path(base) / "headwater" / "kernels"]


def _openmp() -> Path | None:
    """The OpenMP library of PyTorch: with another one, the loops' threads would compete with PyTorch's."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux
        return None
    for line in lines:
        path = line.split(maxsplit=5)[5] if line.count("/") else ""
        if Path(path).name.startswith(("libgomp", "libomp", "libiomp")):
            return Path(path)
    return None


def _ctypes_value(value: Tensor | float | int | None) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous(), value.stride()
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None) if value is None else ctypes.c_int64(value)
