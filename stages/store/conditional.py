"""Conditional writes: what a local file and an object store do when the condition does not hold."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager


def is_refusal(error: OSError) -> bool:
    """True for the answer to a conditional write whose condition did not hold. Object stores word it differently."""
    response = getattr(error.__cause__, "response", None) or {}
    return isinstance(error, FileExistsError) or response.get("Error", {}).get("Code") in ("PreconditionFailed", "412")


@contextmanager
def translate_refusal() -> Iterator[None]:
    """Raises the answer to a conditional write whose condition did not hold as FileExistsError."""
    try:
        yield
    except OSError as error:
        if not is_refusal(error):
            raise
        raise FileExistsError(errno.EEXIST, str(error)) from error


def rewrite_file(path: str, data: bytes, is_own: Callable[[bytes], bool]) -> bool:
    """Overwrites a local file if `is_own` accepts its content. A file that takes its name meanwhile is not touched."""
    handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    try:
        size = os.fstat(handle).st_size
        if not is_own(os.pread(handle, size, 0)):
            return False
        os.pwrite(handle, data, 0)
        if len(data) != size:
            os.ftruncate(handle, len(data))
        return True
    finally:
        os.close(handle)
