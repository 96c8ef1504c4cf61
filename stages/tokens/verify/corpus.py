"""Comparison of the tables of documents with the corpus."""

from __future__ import annotations

from collections.abc import Container, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from stages.store.artifact import Artifact
from stages.tokens.stream import DocumentFiles, document_files
from stages.tokens.verify.documents import DocumentTable
from stages.tokens.verify.finding import Finding

COLUMNS = ("doc_id", "uri", "license")
_BATCH = 1 << 16


def check_corpus(corpus: Artifact, split: str, source: str, table: DocumentTable) -> Iterator[Finding]:
    """Checks that a stream has its source's documents in the order of the corpus, each once.

    Args:
        split: `documents` or `heldout`.
    """
    files = _sources(corpus, split).get(source, DocumentFiles(corpus, source, ()))
    total = _count(files)
    if total != table.count:
        yield Finding(table.file, "doc_id", f"{table.count:,} documents; {corpus.id} has {total:,} of {source}")
    number = 0
    for batch in files.batches(COLUMNS, _BATCH):
        here = np.arange(number, min(number + batch.num_rows, table.count), dtype=np.int64)
        if not here.size:
            return
        for name in COLUMNS:
            ours, theirs = table.take(name, here), batch.column(name).cast(pa.string()).slice(0, len(here))
            differ = pc.fill_null(pc.not_equal(ours, theirs), True).to_numpy(zero_copy_only=False)
            if differ.any():
                line = int(np.argmax(differ))
                found, expected = ours[line].as_py(), theirs[line].as_py()
                problem = f"document {number + line} is {found!r}, in {corpus.id} it is {expected!r}"
                yield Finding(table.file, name, problem)
                return
        number += batch.num_rows


def check_sources(corpus: Artifact, split: str, table: str, sources: Container[str]) -> Iterator[Finding]:
    """Checks that every source of the corpus with documents has a stream.

    Args:
        table: the file of the table of shards.
    """
    for source, files in sorted(_sources(corpus, split).items()):
        if source not in sources and (count := _count(files)):
            yield Finding(table, "source", f"no shard of {source!r}, which has {count:,} documents in {corpus.id}")


def _sources(corpus: Artifact, split: str) -> dict[str, DocumentFiles]:
    return {files.source: files for files in document_files(corpus, split)}


def _count(files: DocumentFiles) -> int:
    return sum(part.rows for part in files.parts)
