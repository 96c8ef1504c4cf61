"""Which files of a base's folder are taken, and which of them hold its weights."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

from models.huggingface import WEIGHTS_INDEX
from stages.base.gguf import SUFFIX
from stages.corpus.reading.listing import Listing, list_files
from stages.hub import TOKENIZER_FILES
from stages.store import ConfigError, InputError, StoreError

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
HUB_FILES = (
    *TOKENIZER_FILES,
    f"/{CONFIG}",
    f"/{GENERATION_CONFIG}",
    "/model*.safetensors",
    f"/{WEIGHTS_INDEX}",
    "/LICENSE*",
    "/README.md",
)
"""Patterns of the files that are downloaded from the hub: no GGUF, of which a repository has a model a dozen times."""
FILES = (*HUB_FILES, f"/*{SUFFIX}")
"""Patterns of the files that are taken from a folder."""


def list_base(location: str, sha256: str | None = None) -> Listing:
    """Lists a base: its folder, or its only file.

    Args:
        sha256: what the content of the only file has to have; 64 hex digits.

    Raises:
        InputError: the location cannot be listed, or has another content.
        ConfigError: a digest is given for what is not one file.
    """
    setting = "training.model.base"
    try:
        listing = list_files(location, FILES)
    except InputError as error:
        raise InputError(f"{setting}: {error}") from error
    if any(is_weights(file.name) for file in listing.files):
        listing = replace(listing, files=tuple(file for file in listing.files if not is_gguf(file.name)))
    if sha256 is None:
        return listing
    if len(listing.files) != 1:
        raise ConfigError(
            f"{setting}_sha256: {location} has {len(listing.files)} files, and the digest is of one; set {setting} to "
            f"the path of the file, or leave {setting}_sha256 out"
        )
    (file,) = listing.files
    if file.sha256.startswith("etag:"):
        raise ConfigError(
            f"{setting}_sha256: {location} is on an object store, which gives {file.sha256} and no sha256; copy the "
            f"file to a disk, or leave {setting}_sha256 out"
        )
    if file.sha256 != sha256:
        raise InputError(
            f"{setting}: {listing.path(file.name)} has the sha256 {file.sha256}, and {setting}_sha256 says {sha256}: "
            "it is another file, or a damaged one; get it again, or change the digest if you mean this one"
        )
    return listing


def find_gguf(folder: Listing) -> str | None:
    """The GGUF file that a folder's weights are in; None if it has SafeTensors, or no weights.

    Raises:
        InputError: there are several.
    """
    names = [file.name for file in folder.files if "/" not in file.name]
    found = sorted(filter(is_gguf, names))
    if not found or any(map(is_weights, names)):
        return None
    if len(found) > 1:
        raise InputError(
            f"training.model.base: {folder.location} has {len(found)} GGUF files ({', '.join(found[:3])}"
            f"{', ...' * (len(found) > 3)}); set the path of one, such as {folder.path(found[0])}"
        )
    return found[0]


def is_gguf(name: str) -> bool:
    return name.lower().endswith(SUFFIX)


def is_weights(name: str) -> bool:
    """Whether a file of a folder holds weights as SafeTensors."""
    return re.fullmatch(r"model.*\.safetensors", name) is not None


def copy_file(folder: Listing, name: str, target: Path) -> None:
    """Copies a file as it was listed.

    Raises:
        InputError: it cannot be read, or has changed since.
        StoreError: it changes now.
    """
    try:
        with folder.open(name) as source, target.open("wb") as copy:
            shutil.copyfileobj(source, copy, 8 << 20)
    except InputError as error:
        raise InputError(f"training.model.base: {error}") from error
    listed = next(file.bytes for file in folder.files if file.name == name)
    if target.stat().st_size != listed:
        raise StoreError(f"training.model.base: {folder.location}/{name} changed while it was copied; run again")
