"""Places of a run's checkpoints."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages.store import Store
from stages.training.checkpoint.memory_tier import ROOT_VARIABLE


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stands for /dev/shm."""
    folder = tmp_path / "memory"
    folder.mkdir()
    monkeypatch.setenv(ROOT_VARIABLE, str(folder))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")
