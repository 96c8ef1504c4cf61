"""Whether a second engine fits into memory."""

from pathlib import Path

import pytest

from serving.config import EngineConfig
from serving.engines import memory
from serving.engines.memory import fits_beside


def test_a_second_engine_needs_available_memory_and_its_share_of_the_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, half = EngineConfig(), EngineConfig(gpu_memory_utilization=0.4)
    monkeypatch.setattr(memory, "GPU", tmp_path / "none")
    monkeypatch.setattr(memory, "available_memory", lambda: 12 << 30)
    assert fits_beside(one, one, 12.0) and not fits_beside(one, one, 12.1)
    monkeypatch.setattr(memory, "GPU", tmp_path)
    assert fits_beside(half, half, 12.0) and not fits_beside(half, one, 12.0)
