"""Access to shard files: the interface that readers use, and its implementation for a local folder."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Fetch(Protocol):
    """Returns the local file of a shard, downloading it first where necessary.

    The file must exist until the caller has mapped it; it may be removed after that, since the mapping stays valid.
    """

    def __call__(self, source: str, shard: int) -> Path:
        """The local path of shard number `shard` of a source.

        Raises:
            StoreError: it cannot be downloaded.
        """
        ...


def shard_name(source: str, shard: int) -> str:
    """A shard's path in its split of a tokens artifact."""
    return f"shards/{source}/{shard:05}.arrow"


class LocalFetch:
    """The shards of an artifact in a local folder.

    Args:
        folder: the artifact's folder, or `heldout` in it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, source: str, shard: int) -> Path:
        return self.folder / shard_name(source, shard)
