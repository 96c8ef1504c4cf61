"""Where shards come from: the one question that reading asks, so that another answer can be put in its place."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol


class Fetch(Protocol):
    """Gives the local file of a shard, fetching it first where it must.

    The file must stay until the call's caller has mapped it; it may be removed after that, since a mapping keeps its
    bytes.
    """

    def __call__(self, source: str, shard: int) -> Path:
        """The local path of shard number `shard` of a source.

        Raises:
            StoreError: it cannot be fetched.
        """
        ...


def shard_name(source: str, shard: int) -> str:
    """A shard's path in its part of a tokens artifact."""
    return f"shards/{source}/{shard:05}.arrow"


class LocalFetch:
    """The shards of an artifact that lies in a local folder.

    Args:
        folder: the artifact's folder, or `heldout` in it.
    """

    def __init__(self, folder: Path):
        self.folder = folder

    def __call__(self, source: str, shard: int) -> Path:
        return self.folder / shard_name(source, shard)
