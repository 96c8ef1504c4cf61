"""Compiled kernels: pure functions over buffers, each tested against a plain Python version.

numba compiles them when first called and caches them beside the source (`__pycache__`), in a folder whose name changes
with any source of the stage: numba itself does not notice that a kernel called by another one has changed. Kernels take
and return numpy arrays, never Python objects; texts are (data: uint8, offsets: int64[n + 1]), see `Texts`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
"""Lists of hashes, concatenated ..."""
Starts = NDArray[np.int64]
"""... and their offsets, int64[n + 1]: list i is `hashes[starts[i]:starts[i + 1]]`."""

F = TypeVar("F", bound=Callable[..., Any])


def _cache_folder() -> str:
    """Folder of compiled kernels: one for each state of the stage's sources."""
    below = Path(__file__).parents[1]
    sources = hashlib.blake2b(digest_size=8)
    for path in sorted(below.rglob("*.py")):
        sources.update(path.read_bytes())
    return str(Path(__file__).parent / "__pycache__" / sources.hexdigest())


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = _cache_folder()  # type: ignore[attr-defined]


def kernel(function: F) -> F:
    """Compiles a function; it releases the GIL while it runs."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
