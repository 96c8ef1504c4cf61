"""How many threads a test computes with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Sets the number for PyTorch and the compiled loops, in this process."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def one_thread() -> AbstractContextManager[None]:
    """For models as small as the tests': they gain nothing by a second thread, and where another process uses a core,
    threads that wait for one another take ten times as long."""
    return threads(1)
