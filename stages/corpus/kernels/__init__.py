"""Compiled kernels: pure functions over buffers, one idea a file, each with a plain Python twin in the tests.

Compiled by numba when first called, and kept beside the source (`__pycache__`) for the next process, under a name that
changes with any source: numba itself does not see that a kernel which another one calls has changed. Kernels take and
give numpy arrays, never Python objects; texts come as (data: uint8, offsets: int64[n + 1]), see `Texts`.
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
"""Lists of hashes, one after the other ..."""
Starts = NDArray[np.int64]
"""... and where they begin, int64[n + 1]: list i is `hashes[starts[i]:starts[i + 1]]`."""

F = TypeVar("F", bound=Callable[..., Any])


def _cache() -> str:
    """Where compiled kernels are kept: a folder for each state of the stage's sources."""
    below = Path(__file__).parents[1]
    sources = hashlib.blake2b(digest_size=8)
    for path in sorted(below.rglob("*.py")):
        sources.update(path.read_bytes())
    return str(Path(__file__).parent / "__pycache__" / sources.hexdigest())


if "NUMBA_CACHE_DIR" not in os.environ:
    numba.config.CACHE_DIR = _cache()  # type: ignore[attr-defined]


def kernel(function: F) -> F:
    """Compiles a function; it releases the interpreter's lock while it runs."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
