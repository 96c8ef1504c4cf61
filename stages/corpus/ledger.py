"""The ledger: why each document that did not stay was removed. Ids and evidence, no text."""

from __future__ import annotations

from stages.artifact import ArtifactWriter
from stages.corpus.policy import Removal
from stages.corpus.summary import SourceAccount
from stages.corpus.tables import REMOVED, RowFiles


class Ledger:
    """Collects removals and writes them as `removed/<n:05>.parquet`; counts them in the sources' accounts."""

    def __init__(self, writer: ArtifactWriter, accounts: dict[str, SourceAccount]):
        self._files = RowFiles(REMOVED, lambda number: writer.file(f"removed/{number:05}.parquet"))
        self._accounts = accounts
        self.removed = 0

    def add(self, source: str, doc_id: str, uri: str, removal: Removal) -> None:
        """Notes one removal."""
        self._accounts[source].removed[removal.rule] += 1
        self.removed += 1
        self._files.add(
            {
                "doc_id": doc_id,
                "uri": uri,
                "source": source,
                "rule": removal.rule,
                "value": float(removal.value),
                "threshold": float(removal.threshold),
                "detail": removal.detail,
                "survivor": removal.survivor,
            }
        )

    def close(self) -> None:
        """Writes what is left."""
        self._files.close()
