"""One thread for all that is small, two where threads share the work."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.models.threads import one_thread, threads


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture
def two_threads() -> Iterator[None]:
    """As where rows are shared out: each has a part of its own to sum up in."""
    with threads(2):
        yield
