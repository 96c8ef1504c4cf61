"""The table of shards: all that an order needs to know about a token stream."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.artifact.errors import StoreError

SHARDS = "shards.parquet"

SCHEMA = pa.schema(
    [
        ("source", pa.string()),
        ("number", pa.int32()),
        ("rows", pa.int64()),
        ("tokens", pa.int64()),
        ("bytes", pa.int64()),
        ("sha256", pa.string()),
    ]
)
"""Columns of `shards.parquet`. `tokens` counts documents' tokens and their EOS, not the filler of a last row."""


@dataclass(frozen=True, eq=False)
class ShardTable:
    """Sources and the rows of each of their shards. A source's index in `sources` is its number everywhere."""

    sources: tuple[str, ...]
    rows: tuple[NDArray[np.int64], ...]
    """Per source: int64 [shards], rows in each."""

    @classmethod
    def load(cls, folder: Path, part: str = "") -> ShardTable:
        """Reads the table of a tokens artifact (`part="heldout"` for its held-out documents).

        Raises:
            StoreError: there is none.
        """
        path = folder / part / SHARDS
        try:
            table = pq.read_table(path, columns=["source", "number", "rows"])
        except (OSError, pa.ArrowInvalid) as error:
            raise StoreError(f"tokens: cannot read {path}: {error}; is {folder} a tokens artifact?") from error
        found: dict[str, dict[int, int]] = {}
        for row in table.to_pylist():
            found.setdefault(row["source"], {})[row["number"]] = row["rows"]
        for source, numbers in found.items():
            if sorted(numbers) != list(range(len(numbers))):
                raise StoreError(f"tokens: {path} misses shards of source {source!r}: it has {sorted(numbers)}")
        names = tuple(sorted(found))
        rows = tuple(np.array([found[s][n] for n in range(len(found[s]))], dtype=np.int64) for s in names)
        return cls(names, rows)

    def samples(self, k: int = 1) -> NDArray[np.int64]:
        """Samples of k consecutive rows in each source: int64 [sources]. A sample never crosses a shard."""
        return np.array([int((rows // k).sum()) for rows in self.rows], dtype=np.int64)

    def left_out(self, k: int = 1) -> NDArray[np.int64]:
        """Rows in each source that belong to no sample of k rows: int64 [sources]."""
        return np.array([int((rows % k).sum()) for rows in self.rows], dtype=np.int64)

    def index(self, source: str) -> int:
        """The number of a source.

        Raises:
            KeyError: no such source.
        """
        try:
            return self.sources.index(source)
        except ValueError:
            raise KeyError(f"no source {source!r}; there are {', '.join(self.sources) or 'none'}") from None
