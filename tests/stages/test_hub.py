"""Which files are downloaded from the hub."""

from __future__ import annotations

from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.utils import filter_repo_objects

from stages.base.folder import HUB_FILES
from stages.hub import find_location

REPOSITORY = (
    "config.json",
    "generation_config.json",
    "model-00001-of-00002.safetensors",
    "model.safetensors.index.json",
    "tokenizer.json",
    "chat_template.jinja",
    "README.md",
    "LICENSE",
)
OTHERS = ("pytorch_model.bin", "model-q4.gguf", "onnx/model.onnx", "modeling_x.py", "original/config.json")


def test_a_base_is_downloaded_whole_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **how: asked.update(how) or f"/cache/{name}")
    assert find_location("training.model.base", "owner/name@v1", HUB_FILES) == "/cache/owner/name"
    assert asked["revision"] == "v1"
    taken = filter_repo_objects([*REPOSITORY, *OTHERS], allow_patterns=asked["allow_patterns"])
    assert [*taken] == [*REPOSITORY]
