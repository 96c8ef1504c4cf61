"""Memory that can still be taken, in a container with a limit."""

from __future__ import annotations

from pathlib import Path

import pytest

from stages import memory


def test_a_container_has_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory, "CGROUPS", tmp_path)
    whole = memory.available_memory()
    for name, text in (("max", "1000000"), ("current", "600000"), ("stat", "anon 1\ninactive_file 100000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    assert whole > 500_000 == memory.available_memory()
    (tmp_path / "memory.max").write_text("max")
    assert memory.available_memory() > 500_000
