"""The ledger: why each removed document was removed. Ids and evidence, no text."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from stages.corpus.chunks import Chunk
from stages.corpus.policy import Removal
from stages.corpus.summary import SourceAccount
from stages.corpus.tables import REMOVED, RowFiles
from stages.store import ArtifactWriter


class Ledger:
    """Collects removals and writes them as `removed/<n:05>.parquet`; counts them in the sources' accounts."""

    def __init__(self, writer: ArtifactWriter, accounts: dict[str, SourceAccount]):
        self._files = RowFiles(REMOVED, lambda number: writer.file(f"removed/{number:05}.parquet"))
        self._accounts = accounts
        self.removed = 0

    def add(self, source: str, rows: pa.Table) -> None:
        """Adds removals of one source: rows with the columns of `REMOVED`."""
        for item in rows["rule"].value_counts().to_pylist():
            self._accounts[source].removed[item["values"]] += item["counts"]
        self.removed += len(rows)
        self._files.add(rows)

    def close(self) -> None:
        """Writes the remaining rows."""
        self._files.close()


def has_rule(table: pa.Table) -> NDArray[np.bool_]:
    """Which rows have a rule in their column `rule`, so are removed: bool[n]."""
    return pc.binary_length(table["rule"]).to_numpy() > 0


def ledger_rows(chunk: Chunk, places: pa.Table, verdict: pa.Table, survivor: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Rows of the ledger for documents of a chunk.

    Args:
        places: columns doc_id, file, file_range, record.
        verdict: columns rule, value, threshold, detail.
    """
    columns = {
        "doc_id": places["doc_id"],
        "uri": chunk.uris(places),
        "source": pa.array([chunk.source] * len(places), pa.string()),
        **{name: verdict[name] for name in ("rule", "value", "threshold", "detail")},
        "survivor": survivor,
    }
    return pa.table(columns).cast(REMOVED)


def verdict_columns(removals: dict[int, Removal], count: int) -> dict[str, pa.Array]:
    """The columns rule, value, threshold, detail of `count` documents, empty for kept ones."""
    nothing = Removal("")
    found = [removals.get(i, nothing) for i in range(count)]
    return {
        "rule": pa.array([one.rule for one in found], pa.string()),
        "value": pa.array([float(one.value) for one in found], pa.float64()),
        "threshold": pa.array([float(one.threshold) for one in found], pa.float64()),
        "detail": pa.array([one.detail for one in found], pa.string()),
    }
