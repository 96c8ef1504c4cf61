"""One small world for all tests of the evaluation."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

# Helpers beside the tests, whichever way pytest imports these.
sys.path.insert(0, str(Path(__file__).parent))

from tests.stages.evaluation.evaluation_world import World, make_world


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # models this small lose by more, above all on a busy machine
    yield make_world(tmp_path_factory.mktemp("evaluation"))
    torch.set_num_threads(threads)
