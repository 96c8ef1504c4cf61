"""Compiles `cpu.c` for this machine, once, and calls it. Without a compiler PyTorch's own operators do its work."""

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
"""Environment variable; `off` keeps to PyTorch's own operators."""


class Library:
    """The compiled loops for one number format; each is called by its name with tensors, numbers and None.

    Tensors must be contiguous and on the host: only their addresses are handed on.
    """

    def __init__(self, path: Path):
        self._loaded = ctypes.CDLL(str(path))

    def __call__(self, name: str, *arguments: Tensor | float | int | None) -> None:
        getattr(self._loaded, name)(ctypes.c_int64(threads()), *map(_plain, arguments))


def threads() -> int:
    """How many share the rows of a loop: PyTorch's number. What each has of its own is made in as many parts."""
    return torch.get_num_threads()


def library(dtype: torch.dtype) -> Library | None:
    """The loops for a number format; None where they cannot be had: no compiler, another system, or switched off."""
    return _library(dtype) if os.environ.get(OFF) != "off" else None


def kernels(x: Tensor) -> Library | None:
    """The loops that work on a tensor like x; None if PyTorch's operators are to."""
    return library(x.dtype) if x.device.type == "cpu" and x.dtype in FORMATS else None


def why_not() -> str:
    """Why there are no compiled loops here; empty if there are."""
    if os.environ.get(OFF) == "off":
        return f"{OFF}=off"
    return _compiled(torch.float32)[1]


@functools.cache
def _library(dtype: torch.dtype) -> Library | None:
    path, _ = _compiled(dtype)
    return Library(path) if path else None


@functools.cache
def _compiled(dtype: torch.dtype) -> tuple[Path | None, str]:
    """The shared library, and why there is none."""
    compiler = next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)
    openmp = _openmp()
    if compiler is None or openmp is None:
        return None, "no C compiler (cc, gcc or clang)" if openmp else "PyTorch runs without OpenMP here"
    command = [*FLAGS, *FORMATS[dtype], str(SOURCE), "-lm", str(openmp)]
    version = subprocess.run([compiler, "--version"], capture_output=True, check=False).stdout
    # What -march=native stands for is part of the name: a home folder may be shared by different machines.
    processor = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")][:1]
    parts = (SOURCE.read_bytes(), repr(command).encode(), version, repr(processor).encode())
    name = hashlib.sha256(b"\0".join(parts)).hexdigest()[:32]
    path = next((path for folder in _folders() if (path := folder / f"{name}.so").exists()), None)
    if path:
        return path, ""
    refused = ""
    for folder in _folders():
        try:
            return _compile([compiler, *command], folder / f"{name}.so")
        except OSError as error:  # read-only, or full
            refused = f"{refused}; {error}" if refused else f"nowhere to keep what is compiled: {error}"
    return None, refused


def _compile(command: list[str], path: Path) -> tuple[Path | None, str]:
    """Makes the library under its name in one step, so that nobody loads a part of it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        made = Path(folder) / path.name
        done = subprocess.run([*command, "-o", str(made)], capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines()[-1:]
            return None, f"{command[0]} could not compile {SOURCE.name}: {''.join(said) or done.returncode}"
        made.rename(path)
    return path, ""


def _folders() -> list[Path]:
    """Where compiled loops may lie: beside their source, where Python keeps its own, else in this user's cache. Nobody
    else may write there: what lies there is loaded as code."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    return [SOURCE.parent / "__pycache__", Path(base) / "headwater" / "kernels"]


def _openmp() -> Path | None:
    """The OpenMP that PyTorch runs on: with one of their own, the loops' threads would take turns with PyTorch's."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:  # not Linux
        return None
    for line in lines:
        path = line.split(maxsplit=5)[5] if line.count("/") else ""
        if Path(path).name.startswith(("libgomp", "libomp", "libiomp")):
            return Path(path)
    return None


def _plain(value: Tensor | float | int | None) -> Any:
    if isinstance(value, Tensor):
        assert value.is_contiguous(), value.stride()
        return ctypes.c_void_p(value.data_ptr())
    if isinstance(value, float):
        return ctypes.c_float(value)
    return ctypes.c_void_p(None) if value is None else ctypes.c_int64(value)
