"""The tables of documents against the corpus that they were made from."""

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


def check_corpus(corpus: Artifact, part: str, source: str, table: DocumentTable) -> Iterator[Finding]:
    """Line for line: a stream holds its source's documents in the order of the corpus, each once.

    Args:
        part: `documents` or `heldout`.
    """
    files = _sources(corpus, part).get(source, DocumentFiles(corpus, source, ()))
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
                here_is, there_is = ours[line].as_py(), theirs[line].as_py()
                problem = f"document {number + line} is {here_is!r}, {corpus.id} has {there_is!r} there"
                yield Finding(table.file, name, problem)
                return
        number += batch.num_rows


def check_sources(corpus: Artifact, part: str, table: str, sources: Container[str]) -> Iterator[Finding]:
    """Every source of the corpus that has documents has a stream.

    Args:
        table: the table of shards, which should name it.
    """
    for source, files in sorted(_sources(corpus, part).items()):
        if source not in sources and (count := _count(files)):
            yield Finding(table, "source", f"has no shard of {source!r}, of which {corpus.id} has {count:,} documents")


def _sources(corpus: Artifact, part: str) -> dict[str, DocumentFiles]:
    return {files.source: files for files in document_files(corpus, part)}


def _count(files: DocumentFiles) -> int:
    return sum(part.rows for part in files.parts)
