"""Checks that a model folder is safe and complete before vLLM loads it.

vLLM's `trust_remote_code=False` has been bypassed more than once (CVE-2025-66448, CVE-2026-22807, CVE-2026-27893), so a
folder that holds code, a pickle, or a reference to code is refused before the engine sees it. So is one with a file or
a key that is not known (`model_files`, `model_config`, `tokenizer_config`): it may point elsewhere. The type of a file
is determined by its content, not by its name.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError, ServingError
from serving.model_config import check_config, check_generation_config
from serving.model_files import (
    CHAT_TEMPLATE,
    CONFIG,
    GENERATION_CONFIG,
    SPECIAL_TOKENS_MAP,
    TOKENIZER,
    TOKENIZER_CONFIG,
    VOCABULARIES,
    WEIGHTS_INDEX,
    check_name,
    check_weights_index,
)
from serving.record import Deployment
from serving.tokenizer_config import check_special_tokens_map, check_tokenizer_config
from stages.store import Artifact, Store, load
from stages.store.hashing import cached_sha256

FORBIDDEN_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipelines", "custom_generate"})
MAX_HEADER_BYTES = 100_000_000
"""The SafeTensors format's own limit."""


@dataclass(frozen=True)
class ModelFolder:
    """A model folder that passed the checks."""

    path: Path
    max_model_len: int | None
    """The model's maximum position; None if its config does not say."""
    has_chat_template: bool


def find_model(store: Store, deployment: Deployment) -> Artifact:
    """The deployment's model artifact.

    Raises:
        ServingError: it does not exist, or has another digest.
    """
    artifact = load(store, deployment.model_folder)
    where = store.where(deployment.model_folder)
    if artifact is None:
        raise ServingError(f"there is no model artifact at {where}; run the recipe again to build it")
    if artifact.digest != deployment.model_digest:
        raise ServingError(
            f"{where} has digest {artifact.digest[:12]}, the deployment record asks for {deployment.model_digest[:12]}"
        )
    return artifact


def verify_model(artifact: Artifact, path: str = "weights") -> ModelFolder:
    """The Hugging Face folder `path` of an artifact as local files, safe to load and with the hashes of its manifest.

    From an object store it is downloaded once, and later calls do not contact the store. Large files that have not
    changed since they were hashed on this machine are not read again.

    Raises:
        ServingError: a file is damaged or missing.
        ModelRefusedError: see `check_model_folder`.
    """
    local = artifact.local(path)
    checked = check_model_folder(local)
    if damaged := _damaged_files(artifact, path, local):
        if not artifact.store.is_local:  # perhaps only the local copy is: download it again, once
            for name in damaged:
                (local / name).unlink(missing_ok=True)
            local = artifact.local(path)
            damaged = _damaged_files(artifact, path, local)
        if damaged:
            names = ", ".join(f"{path}/{name}" for name in damaged[:3])
            raise ServingError(
                f"{artifact.store.where(artifact.folder)} is damaged ({names}); remove it and run the recipe again"
            )
    listed = {local / entry.path.removeprefix(f"{path}/") for entry in artifact.files(f"{path}/")}
    for file in _files(local):
        if file not in listed:
            raise ModelRefusedError(f"{file} is not listed in the artifact's manifest; remove it")
    return checked


def check_model_folder(folder: Path) -> ModelFolder:
    """Checks a Hugging Face model folder without loading any of it.

    Raises:
        ModelRefusedError: it is incomplete; or holds code, pickles, references to code, links that point outside, or
            files or keys that are not known.
    """
    if not folder.is_dir():
        raise ModelRefusedError(f"{folder} is not a folder")
    configs: dict[str, Any] = {}
    weights: set[str] = set()
    for path in _files(folder):
        name, suffix = path.relative_to(folder).as_posix(), path.suffix.lower()
        check_name(path, name)
        if suffix == ".json":
            configs[name] = _read_json(path)
            _refuse_code_references(path, configs[name])
        elif suffix == ".safetensors":
            _check_safetensors(path)
            weights.add(name)
        elif suffix == ".model":
            _check_sentencepiece(path)
        else:
            _check_text(path)
    if not weights:
        raise ModelRefusedError(f"{folder} has no .safetensors file")
    if CONFIG not in configs:
        raise ModelRefusedError(f"{folder} has no config.json")
    for name, check in _CHECKS.items():
        if name in configs:
            check(folder / name, configs[name])
    if WEIGHTS_INDEX in configs:
        check_weights_index(folder / WEIGHTS_INDEX, configs[WEIGHTS_INDEX], weights)
    elif len(weights) > 1:
        raise ModelRefusedError(
            f"{folder} has several .safetensors files but no {WEIGHTS_INDEX}; export the model again"
        )
    config = configs[CONFIG]
    tokenizer = configs.get(TOKENIZER_CONFIG, {})
    return ModelFolder(
        path=folder,
        max_model_len=config.get("max_position_embeddings", config.get("n_positions")),  # the second is GPT-2's name
        has_chat_template=bool(tokenizer.get("chat_template")) or (folder / CHAT_TEMPLATE).exists(),
    )


_CHECKS: dict[str, Callable[[Path, Any], None]] = {
    CONFIG: check_config,
    GENERATION_CONFIG: check_generation_config,
    TOKENIZER_CONFIG: check_tokenizer_config,
    SPECIAL_TOKENS_MAP: check_special_tokens_map,
}
"""Checks of the content of a JSON file, by name."""


def _damaged_files(artifact: Artifact, path: str, local: Path) -> list[str]:
    """Names below `path` that are missing locally, or whose hash differs from the manifest's."""
    found = []
    for entry in artifact.files(f"{path}/"):
        name = entry.path.removeprefix(f"{path}/")
        if not (local / name).is_file() or cached_sha256(local / name) != entry.sha256:
            found.append(name)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Every regular file below `folder`, sorted.

    Raises:
        ModelRefusedError: a link points outside of `folder`, or an entry is neither a file nor a folder.
    """
    root = os.path.realpath(folder)
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(base, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise ModelRefusedError(f"{path}: links that point outside of the model folder are refused")
        for name in sorted(names):
            path = Path(base, name)
            try:
                mode = path.stat().st_mode
            except OSError as error:
                raise ModelRefusedError(f"{path} cannot be read: {error.strerror}") from error
            if not stat.S_ISREG(mode):  # reading a named pipe would block
                raise ModelRefusedError(f"{path} is not a regular file; remove it")
            yield path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes().decode())  # as transformers and vLLM read it: UTF-8 without a mark
    except (ValueError, RecursionError) as error:
        raise ModelRefusedError(f"{path} is not valid JSON: {error}") from error


def _refuse_code_references(path: Path, content: Any) -> None:
    """Refuses a JSON file that refers to code in the model folder, at any depth."""
    if path.name in VOCABULARIES and isinstance(content, dict) and all(type(n) is int for n in content.values()):
        return
    if path.name == TOKENIZER and isinstance(content, dict) and isinstance(content.get("model"), dict):
        model = {key: value for key, value in content["model"].items() if key not in ("vocab", "merges")}
        content = content | {"model": model}
    for key, value in _items(content):
        if key in FORBIDDEN_KEYS and value:
            raise ModelRefusedError(f"{path}: {key!r} refers to code in the model folder, which is refused")


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """Every (key, value) of every object in a JSON value. Not recursive: the depth is not ours to trust."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _check_safetensors(path: Path) -> None:
    """Checks for the SafeTensors header, a length of eight bytes and a JSON object; pickles and ZIP archives fail."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        fits = length <= min(MAX_HEADER_BYTES, path.stat().st_size - 8)
        header = file.read(length) if fits else b""
    try:
        if header[:1] == b"{" and isinstance(json.loads(header), dict):
            return
    except (ValueError, RecursionError):
        pass  # refused below
    raise ModelRefusedError(f"{path} is not in the SafeTensors format, despite its name; export the model again")


def _check_sentencepiece(path: Path) -> None:
    """Checks for a SentencePiece model: a protocol buffer that starts with field 1, of variable length."""
    with path.open("rb") as file:
        if file.read(1) != b"\x0a":
            raise ModelRefusedError(f"{path} is not a SentencePiece model, despite its name; export the model again")


def _check_text(path: Path) -> None:
    try:
        if "\0" not in path.read_bytes().decode():
            return
    except UnicodeDecodeError:
        pass  # refused below
    raise ModelRefusedError(f"{path} is not text: only SafeTensors, JSON and text are allowed; remove it")
