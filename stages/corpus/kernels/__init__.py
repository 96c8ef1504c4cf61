"""Compiled kernels: pure functions over buffers, one idea a file, each with a plain Python twin in the tests.

Compiled by numba when first called, and kept beside the source (`__pycache__`) for the next process. Kernels take and
give numpy arrays, never Python objects; texts come as (data: uint8, offsets: int64[n + 1]), see `Texts`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
"""Lists of hashes, one after the other ..."""
Starts = NDArray[np.int64]
"""... and where they begin, int64[n + 1]: list i is `hashes[starts[i]:starts[i + 1]]`."""

F = TypeVar("F", bound=Callable[..., Any])


def kernel(function: F) -> F:
    """Compiles a function; it releases the interpreter's lock while it runs."""
    return cast(F, numba.njit(cache=True, nogil=True, error_model="numpy")(function))
