"""Is a model folder safe and whole enough to be handed to vLLM?

vLLM's `trust_remote_code=False` has been bypassed more than once (CVE-2025-66448, CVE-2026-22807, CVE-2026-27893), so a
folder that holds code, a pickle, or a pointer to code is refused before the engine sees it. What a file is, its content
has to show: its name alone proves nothing.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from serving.errors import ModelRefusedError, ServingError
from serving.record import Deployment
from stages.store import Artifact, Store, load
from stages.store.hashing import remembered_sha256

TEXT_SUFFIXES = frozenset({"", ".jinja", ".txt", ".md"})
"""Besides `.safetensors`, `.json` and SentencePiece's `.model`; a licence often has no suffix."""
FORBIDDEN_KEYS = frozenset({"auto_map", "trust_remote_code", "custom_pipelines", "custom_generate"})
STOCK_TOKENIZERS = frozenset(
    f"{family}Tokenizer{kind}"
    for family in (
        *(
            "Bert",
            "BioGpt",
            "Bloom",
            "CodeGen",
            "CodeLlama",
            "Cohere",
            "GPT2",
            "GPTNeoX",
            "Gemma",
            "Llama",
            "OpenAIGPT",
        ),
        *("Qwen2", "Qwen3_5", "Roberta", "T5", "XLMRoberta"),
    )
    for kind in ("", "Fast")
) | {"PreTrainedTokenizer", "PreTrainedTokenizerFast", "TokenizersBackend"}
"""Tokenizer classes that transformers has itself. Another name means a class of the model's own, that is code."""
TOKENIZER = "tokenizer.json"
VOCABULARIES = ("vocab.json", "added_tokens.json")
"""Token to number: any word may be a key there, `auto_map` too."""
CHAT_TEMPLATES = ("chat_template.jinja", "chat_template.json")
LONGEST_HEADER = 100_000_000
"""Bytes; the SafeTensors format's own limit."""


@dataclass(frozen=True)
class ModelFolder:
    """A checked model folder."""

    path: Path
    max_model_len: int | None
    """Positions that the model was made for."""
    has_chat_template: bool


def find_model(store: Store, deployment: Deployment) -> Artifact:
    """The deployment's model artifact.

    Raises:
        ServingError: it is gone, or is another one.
    """
    artifact = load(store, deployment.model_folder)
    where = store.where(deployment.model_folder)
    if artifact is None:
        raise ServingError(f"there is no model artifact at {where}; run the recipe again to make it")
    if artifact.digest != deployment.model_digest:
        raise ServingError(
            f"{where} holds {artifact.digest[:12]}, the deployment record asks for {deployment.model_digest[:12]}"
        )
    return artifact


def checked_model(artifact: Artifact, path: str = "weights") -> ModelFolder:
    """The Hugging Face folder `path` of an artifact on local files, safe to load and byte for byte what was recorded.

    From an object store it is fetched once; then the store is not asked any more. Large files that have not changed
    since they were hashed on this machine are not read again.

    Raises:
        ServingError: it is damaged, or holds what its manifest does not list.
        ModelRefusedError: see `check_model_folder`.
    """
    local = artifact.local(path)
    checked = check_model_folder(local)
    if damaged := _damaged(artifact, path, local):
        if not artifact.store.is_local:  # the copy, perhaps: fetched again once
            for name in damaged:
                (local / name).unlink(missing_ok=True)
            local = artifact.local(path)
            damaged = _damaged(artifact, path, local)
        if damaged:
            names = ", ".join(f"{path}/{name}" for name in damaged[:3])
            raise ServingError(
                f"{artifact.store.where(artifact.folder)} is damaged ({names}); remove the folder to make it again"
            )
    listed = {local / entry.path.removeprefix(f"{path}/") for entry in artifact.files(f"{path}/")}
    for file in _files(local):
        if file not in listed:
            raise ModelRefusedError(f"{file} is not in the artifact's manifest and is refused; remove it")
    return checked


def check_model_folder(folder: Path) -> ModelFolder:
    """Checks a Hugging Face model folder without loading anything of it.

    Raises:
        ModelRefusedError: it is missing something, or holds code, pickles, pointers to code, or links that lead out.
    """
    if not folder.is_dir():
        raise ModelRefusedError(f"{folder} is not a folder")
    configs: dict[str, Any] = {}
    weights = False
    for path in _files(folder):
        suffix = path.suffix.lower()
        if suffix == ".json":
            name = path.relative_to(folder).as_posix()
            configs[name] = _read_json(path)
            _refuse_pointers(path, configs[name])
        elif suffix == ".safetensors":
            _check_safetensors(path)
            weights = True
        elif suffix == ".model":
            _check_sentencepiece(path)
        elif suffix in TEXT_SUFFIXES:
            _check_text(path)
        else:
            raise ModelRefusedError(
                f"{path}: {suffix} files are refused, only SafeTensors and JSON are served; export the model again"
            )
    if not weights:
        raise ModelRefusedError(f"{folder} holds no .safetensors file")
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


def _damaged(artifact: Artifact, path: str, local: Path) -> list[str]:
    """Names below `path` whose local bytes are missing or not what the manifest says."""
    found = []
    for entry in artifact.files(f"{path}/"):
        name = entry.path.removeprefix(f"{path}/")
        if not (local / name).is_file() or remembered_sha256(local / name) != entry.sha256:
            found.append(name)
    return found


def _files(folder: Path) -> Iterator[Path]:
    """Every regular file below `folder`, sorted.

    Raises:
        ModelRefusedError: there is a link that leads out, or something that is neither file nor folder.
    """
    root = os.path.realpath(folder)
    for base, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted([*folders, *names]):
            path = Path(base, name)
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(root):
                raise ModelRefusedError(f"{path}: a link that leads out of the model folder is refused")
        for name in sorted(names):
            path = Path(base, name)
            try:
                mode = path.stat().st_mode
            except OSError as error:
                raise ModelRefusedError(f"{path} cannot be read: {error.strerror}") from error
            if not stat.S_ISREG(mode):  # a named pipe would be waited for
                raise ModelRefusedError(f"{path} is not a regular file and is refused")
            yield path


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelRefusedError(f"{path} is not valid JSON: {error}") from error


def _refuse_pointers(path: Path, content: Any) -> None:
    """Refuses what asks for code from the model folder, however deep it stands."""
    if path.name in VOCABULARIES and isinstance(content, dict) and all(type(n) is int for n in content.values()):
        return
    if path.name == TOKENIZER and isinstance(content, dict) and isinstance(content.get("model"), dict):
        kept = {key: value for key, value in content["model"].items() if key not in ("vocab", "merges")}
        content = content | {"model": kept}
    for key, value in _items(content):
        if key in FORBIDDEN_KEYS and value:
            raise ModelRefusedError(f"{path}: {key!r} asks for code from the model folder and is refused")
        if key == "tokenizer_class" and value is not None and str(value) not in STOCK_TOKENIZERS:
            raise ModelRefusedError(
                f"{path}: tokenizer_class {value!r} is not one of transformers' own, so it would be code and is "
                "refused; save the tokenizer as PreTrainedTokenizerFast"
            )


def _items(content: Any) -> Iterator[tuple[str, Any]]:
    """Every key of every object in a JSON value, with what it holds; without recursion, for depth is the sender's."""
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            yield from value.items()
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)


def _check_safetensors(path: Path) -> None:
    """The header is eight bytes of length and then a JSON object; a pickle or a ZIP archive is not."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        fits = length <= min(LONGEST_HEADER, path.stat().st_size - 8)
        header = file.read(length) if fits else b""
    try:
        if header[:1] == b"{" and isinstance(json.loads(header), dict):
            return
    except (ValueError, RecursionError):
        pass  # told below
    raise ModelRefusedError(f"{path} is not in the SafeTensors format, whatever its name says, and is refused")


def _check_sentencepiece(path: Path) -> None:
    """A SentencePiece model is a protocol buffer that begins with its first piece: field 1, of variable length."""
    with path.open("rb") as file:
        if file.read(1) != b"\x0a":
            raise ModelRefusedError(f"{path} is not a SentencePiece model, whatever its name says, and is refused")


def _check_text(path: Path) -> None:
    try:
        if "\0" not in path.read_bytes().decode():
            return
    except UnicodeDecodeError:
        pass  # told below
    raise ModelRefusedError(f"{path} is not text: only SafeTensors, JSON and text are served; remove it")
