"""The base stage: a Hugging Face folder, or a GGUF file, checked whole and copied, becomes an artifact.

Its layout is that of an exported model (`weights/`), so that a run goes on from either. The copy is what makes a run
repeatable: folders change, and a hub's newest revision does.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.huggingface import WEIGHTS, from_config
from models.pretrained import PretrainedWeights, check_finite, check_tensors, read_json
from stages.base.folder import CONFIG, copy_file, find_gguf, is_gguf, is_weights
from stages.base.gguf import SUFFIX, convert
from stages.base.license import find_license, license_of_card
from stages.base.tokenizer import FOLDER
from stages.corpus.policy import UNKNOWN, normalize_license
from stages.corpus.reading.listing import Listing, list_files
from stages.hub import TOKENIZER_FILES
from stages.store import ArtifactWriter, Config, InputError, Stage
from stages.tokens.existing_tokenizer import load_tokenizer

_BESIDE_GGUF = re.compile(r"LICENSE.*|README\.md", re.IGNORECASE)
"""Files that are taken beside a GGUF file, which brings config, weights and tokenizer itself."""
_JSON_BYTES = 16 << 20
"""Most bytes of a JSON file that is read whole: an index of 100,000 tensors has 10 MB."""


class BaseConfig(Config):
    """What is said about a base beside its files."""

    base_license: str | None = None
    """Its licence (SPDX). Absent: what the front matter of its README.md says, or a GGUF file itself."""


def build(config: BaseConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """Copies `inputs["folder"]`, the listing of a model's folder, and checks every number in it.

    Raises:
        InputError: it is not a whole model of a supported architecture with a byte-level tokenizer, or it needs code
            of its own.
        StoreError: the disk is full.
    """
    folder: Listing = inputs["folder"]
    gguf = find_gguf(folder)
    if gguf is not None:
        copy, named = _from_gguf(folder, gguf, writer)
        tokenizer = load_tokenizer(list_files(copy, TOKENIZER_FILES))
    else:
        names = [file.name for file in folder.files if "/" not in file.name and not is_gguf(file.name)]
        _check_names(folder, names)
        tokenizer = load_tokenizer(folder)
        copy = _copy(folder, names, writer)
        named = find_license(copy)
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
    license = _license(config.base_license, named, folder, writer)
    writer.counts.update(parameters=total, vocabulary=size)
    writer.details.update(
        architecture=shape.architecture,
        license=license,
        location=folder.location,
        eos_ids=list(tokens.eos_ids),
        bos_id=tokens.bos_id,
    )


def _license(said: str | None, named: str, folder: Listing, writer: ArtifactWriter) -> str:
    """What a person says, else what the model itself names; a contradiction, or neither, is a warning."""
    license = normalize_license(said) if said is not None else named
    message = ""
    if license == UNKNOWN:
        message = (
            f"training.model.base: the licence of {folder.location} is not known, and nothing made from it can say "
            "under which it stands; name it with training.model.base_license"
        )
    elif named not in (license, UNKNOWN):
        message = f"training.model.base_license: {license} is taken, though {folder.location} itself names {named}"
    if message:
        writer.events.emit("warning", durable=True, message=message)
    return license


def _from_gguf(folder: Listing, name: str, writer: ArtifactWriter) -> tuple[Path, str]:
    """Converts a GGUF file, and copies licence and card from beside it. Returns the new folder, and the licence that
    the file or the card names."""
    alone, made = writer.work("gguf") / f"model{SUFFIX}", writer.work("from-gguf")
    copy_file(folder, name, alone)
    writer.events.progress(0, 1, "GGUF file read")
    try:
        header = convert(alone, made)
    except ValueError as error:
        reason = str(error).replace(str(alone), "it").replace(str(alone.parent), "its folder")
        raise InputError(f"training.model.base: {folder.path(name)}: {reason}") from error
    alone.unlink()
    for path in made.iterdir():
        path.rename(writer.file(f"{FOLDER}/{path.name}"))
    for file in folder.files:
        if _BESIDE_GGUF.fullmatch(file.name):
            copy_file(folder, file.name, writer.file(f"{FOLDER}/{file.name}"))
    writer.events.progress(1, 1, "GGUF file read")
    copy = writer.file(f"{FOLDER}/{CONFIG}").parent
    card = {"license": header.text("general.license"), "license_name": header.text("general.license.name")}
    own = license_of_card(card)
    return copy, own if own != UNKNOWN else find_license(copy)


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
    if not any(map(is_weights, names)):
        others = sorted(path.name for path in _local_files(folder) if path.suffix in (".bin", ".pt", ".pth"))
        found = f"; it has {', '.join(others[:3])}, which are not read" if others else ""
        raise InputError(
            f"training.model.base: {folder.location} has no SafeTensors weights ({WEIGHTS}) and no GGUF file{found}: "
            "pickles can run code; where you trust the model, load it with transformers and `save_pretrained` it"
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
        copy_file(folder, name, writer.file(f"{FOLDER}/{name}"))
        done += sizes[name]
        writer.events.progress(done, total, "bytes copied")
    return writer.file(f"{FOLDER}/{CONFIG}").parent


def _without(folder: str, message: str) -> str:
    """A message about the copy, as one about the original."""
    return message.removeprefix(f"{folder}: ").replace(f"{folder}/", "").replace(folder, "it")


base = Stage("base", 1, build)
