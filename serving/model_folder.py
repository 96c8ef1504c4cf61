"""Is a model folder safe and whole enough to be handed to vLLM?

vLLM's `trust_remote_code=False` has been bypassed more than once (CVE-2025-66448, CVE-2026-22807, CVE-2026-27893), so a
folder that holds code, a pickle, or a pointer to code is refused before the engine sees it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError

FORBIDDEN_SUFFIXES = frozenset({".py", ".pyc", ".so", ".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib"})
FORBIDDEN_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipelines"})
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder."""

    path: Path
    max_model_len: int | None
    """Positions that the model was made for."""
    has_chat_template: bool


def check_model_folder(folder: Path) -> ModelFolder:
    """Checks a Hugging Face model folder without loading anything of it.

    Raises:
        ModelRefusedError: it is missing something, or holds code, pickles or pointers to code.
    """
    if not folder.is_dir():
        raise ModelRefusedError(f"{folder} is not a folder")
    files = sorted(path for path in folder.rglob("*") if not path.is_dir())
    for path in files:
        if path.suffix.lower() in FORBIDDEN_SUFFIXES:
            raise ModelRefusedError(
                f"{path}: {path.suffix} files are refused, only SafeTensors and JSON are served; export the model again"
            )
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ModelRefusedError(f"{path}: a link that leads out of the model folder is refused")
    if not any(path.suffix == ".safetensors" for path in files):
        raise ModelRefusedError(f"{folder} holds no .safetensors file")
    configs = {
        path.name: _read_json(path) for path in files if path.suffix == ".json" and path.name != "tokenizer.json"
    }
    for name, content in configs.items():
        found = _find_key(content, FORBIDDEN_KEYS)
        if found:
            raise ModelRefusedError(f"{folder / name}: {found!r} asks for code from the model folder and is refused")
    if "config.json" not in configs:
        raise ModelRefusedError(f"{folder} holds no config.json")
    config = configs["config.json"]
    if not isinstance(config, dict) or not config.get("architectures"):
        raise ModelRefusedError(f"{folder / 'config.json'} names no architecture")
    tokenizer = configs.get("tokenizer_config.json")
    template = isinstance(tokenizer, dict) and bool(tokenizer.get("chat_template"))
    length = config.get("max_position_embeddings")
    return ModelFolder(
        path=folder,
        max_model_len=length if isinstance(length, int) else None,
        has_chat_template=template or any((folder / name).exists() for name in CHAT_TEMPLATES),
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except ValueError as error:
        raise ModelRefusedError(f"{path} is not valid JSON: {error}") from error


def _find_key(value: Any, keys: frozenset[str]) -> str | None:
    """The first of `keys` anywhere in a JSON value that is set to something."""
    if isinstance(value, dict):
        for key, item in value.items():
            if key in keys and item:
                return str(key)
            if found := _find_key(item, keys):
                return found
    elif isinstance(value, list):
        for item in value:
            if found := _find_key(item, keys):
                return found
    return None
