"""One thread for small models, two where threads share the rows."""

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
    """Where rows are divided among threads: each thread has an accumulator of its own."""
    with threads(2):
        yield
