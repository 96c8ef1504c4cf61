"""One small world for all tests of the evaluation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.models.threads import one_thread
from tests.stages.evaluation.evaluation_world import World, make_world


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    with one_thread():
        yield


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    with one_thread():
        return make_world(tmp_path_factory.mktemp("evaluation"))
