"""Imports at full speed.

PyTorch and what we add to it make half a million objects that stay as long as the process. Python's collector looks
through them again and again while they are made, in vain: a fifth of the time that the imports take.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collections() -> Iterator[None]:
    """Keeps the collector still, and from ever looking through what is there at the end."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if enabled:
            gc.enable()
