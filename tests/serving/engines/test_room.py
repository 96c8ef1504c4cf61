"""Whether there is memory for a second engine."""

from pathlib import Path

import pytest

from serving.config import EngineConfig
from serving.engines import room
from serving.engines.room import room_for_two


def test_room_for_two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one, half = EngineConfig(), EngineConfig(gpu_memory_fraction=0.4)
    monkeypatch.setattr(room, "GPU", tmp_path / "none")
    monkeypatch.setattr(room, "available_memory", lambda: 12 << 30)
    assert room_for_two(one, one, 12.0) and not room_for_two(one, one, 12.1)
    monkeypatch.setattr(room, "GPU", tmp_path)
    assert room_for_two(half, half, 12.0) and not room_for_two(half, one, 12.0)
