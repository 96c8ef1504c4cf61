"""A base's tokenizer: what its tokens have to be made with."""

from __future__ import annotations

from fnmatch import fnmatchcase

from stages.corpus.reading.listing import ListedFile, Listing
from stages.hub import TOKENIZER_FILES
from stages.store import Artifact

FOLDER = "weights"
"""Where a model's files lie in an artifact."""


def tokenizer_of(base: Artifact) -> Listing:
    """The files of a base's tokenizer, as the tokens stage takes them. From the manifest: nothing is fetched."""
    prefix = f"{FOLDER}/"
    files = [ListedFile(entry.path.removeprefix(prefix), entry.bytes, entry.sha256) for entry in base.files(prefix)]
    own = [file for file in files if any(fnmatchcase(file.name.rsplit("/", 1)[-1], name) for name in TOKENIZER_FILES)]
    return Listing(base.store.where(f"{base.folder}/{FOLDER}"), tuple(own))
