"""The base stage: a Hugging Face folder, checked whole and copied, becomes an artifact.

Its layout is that of an exported model (`weights/`), so that a run goes on from either. The copy is what makes a run
repeatable: folders change, and a hub's newest revision does.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.huggingface import WEIGHTS, WEIGHTS_INDEX, from_config
from models.pretrained import PretrainedWeights, check_finite, check_tensors, read_json
from stages.base.license import find_license
from stages.base.tokenizer import FOLDER
from stages.corpus.policy import UNKNOWN
from stages.corpus.reading.listing import Listing
from stages.hub import TOKENIZER_FILES
from stages.store import ArtifactWriter, Config, InputError, Stage, StoreError
from stages.tokens.existing_tokenizer import load_tokenizer

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
FILES = (
    *TOKENIZER_FILES,
    f"/{CONFIG}",
    f"/{GENERATION_CONFIG}",
    "/model*.safetensors",
    f"/{WEIGHTS_INDEX}",
    "/LICENSE*",
    "/README.md",
)
"""Patterns of the files that are taken from a folder."""
_JSON_BYTES = 16 << 20
"""Most bytes of a JSON file that is read whole: an index of 100,000 tensors has 10 MB."""


class BaseConfig(Config):
    """What is said about a base beside its files."""

    base_license: str | None = None
    """Its licence (SPDX). Absent: what the front matter of its README.md says."""


def build(config: BaseConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Copies `inputs["folder"]`, the listing of a model's folder, and checks every number in it.

    Raises:
        InputError: it is not a whole model of a supported architecture with a byte-level tokenizer, or it needs code
            of its own.
        StoreError: the disk is full.
    """
    folder: Listing = inputs["folder"]
    names = [file.name for file in folder.files if "/" not in file.name]
    _check_names(folder, names)
    tokenizer = load_tokenizer(folder)
    copy = _copy(folder, names, writer)
    try:
        shape, tokens = from_config(read_json(copy / CONFIG))
        size = tokenizer.tokenizer.get_vocab_size()
        if size > shape.vocabulary_size:
            raise ValueError(
                f"its tokenizer has {size:,} tokens, and its weights have rows for {shape.vocabulary_size:,}: the "
                "tokenizer is of another model, or tokens were added without resizing the embedding"
            )
        with PretrainedWeights(copy) as weights:
            check_tensors(shape, weights)
            total = sum(math.prod(weights.shape(name)) for name in weights.names)
            checked = 0
            for name in weights.names:
                for rows in weights.chunks(name):
                    check_finite(name, rows)
                    checked += rows.numel()
                writer.events.progress(checked, total, "numbers checked")
    except ValueError as error:
        raise InputError(f"training.model.base: {folder.location}: {_without(str(copy), str(error))}") from error
    license = find_license(config.base_license, copy)
    writer.counts.update(parameters=total, vocabulary=size)
    writer.details.update(
        architecture=shape.architecture,
        license=license,
        location=folder.location,
        eos_ids=list(tokens.eos_ids),
        bos_id=tokens.bos_id,
    )
    if license == UNKNOWN:
        writer.events.emit("warning", durable=True, message=_unknown(folder))


def _unknown(folder: Listing) -> str:
    return (
        f"training.model.base: the licence of {folder.location} is not known, and nothing made from it can say under "
        "which it stands; name it with training.model.base_license"
    )


def _check_names(folder: Listing, names: list[str]) -> None:
    """Refuses a folder that lacks a part, before anything is copied."""
    for name, what in (
        (CONFIG, "its shape"),
        ("tokenizer.json", "its tokenizer: without it nobody knows what the model's token ids mean"),
    ):
        if name not in names:
            raise InputError(
                f"training.model.base: {folder.location} has no {name}, {what}; save the model and its tokenizer with "
                "`save_pretrained` into one folder"
            )
    for file in folder.files:
        if file.name.endswith(".json") and file.bytes > _JSON_BYTES and file.name != "tokenizer.json":
            raise InputError(f"training.model.base: {folder.location}/{file.name} has {file.bytes:,} bytes: no config")
    if not any(re.fullmatch(r"model.*\.safetensors", name) for name in names):
        others = sorted(path.name for path in _local_files(folder) if path.suffix in (".bin", ".pt", ".pth", ".gguf"))
        found = f"; it has {', '.join(others[:3])}, which are not read" if others else ""
        raise InputError(
            f"training.model.base: {folder.location} has no SafeTensors weights ({WEIGHTS}){found}: pickles can run "
            "code, GGUF is quantized; where you trust the model, load it with transformers and `save_pretrained` it"
        )


def _local_files(folder: Listing) -> list[Path]:
    path = Path(folder.location)
    return [*path.iterdir()] if path.is_dir() else []


def _copy(folder: Listing, names: list[str], writer: ArtifactWriter) -> Path:
    """Copies the files as they were listed; returns the folder of the copies."""
    sizes = {file.name: file.bytes for file in folder.files}
    total, done = sum(sizes[name] for name in names), 0
    templates = [file.name for file in folder.files if "/" in file.name and file.name.endswith(".jinja")]
    for name in [*names, *templates]:
        target = writer.file(f"{FOLDER}/{name}")
        try:
            with folder.open(name) as source, target.open("wb") as copy:
                shutil.copyfileobj(source, copy, 8 << 20)
        except InputError as error:
            raise InputError(f"training.model.base: {error}") from error
        if target.stat().st_size != sizes[name]:
            raise StoreError(f"training.model.base: {folder.location}/{name} changed while it was copied; run again")
        done += sizes[name]
        writer.events.progress(done, total, "bytes copied")
    return writer.file(f"{FOLDER}/{CONFIG}").parent


def _without(folder: str, message: str) -> str:
    """A message about the copy, as one about the original."""
    return message.removeprefix(f"{folder}: ").replace(f"{folder}/", "").replace(folder, "it")


base = Stage("base", 1, build)
