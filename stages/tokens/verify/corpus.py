"""The tables of documents against the corpus that they were made from."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from stages.artifact.artifact import Artifact
from stages.artifact.errors import InputError
from stages.tokens.verify.documents import DocumentTable
from stages.tokens.verify.finding import Finding

COLUMNS = ("doc_id", "uri", "license")
_BATCH = 1 << 16


def check_corpus(corpus: Artifact, part: str, source: str, table: DocumentTable) -> Iterator[Finding]:
    """Line for line: a stream holds its source's documents in the order of the corpus, each once.

    Args:
        part: `documents` or `heldout`.
    """
    total = sum(_count(corpus, path) for path in _files(corpus, f"{part}/{source}/"))
    if total != table.count:
        yield Finding(table.file, "doc_id", f"{table.count:,} documents; {corpus.id} has {total:,} of {source}")
    number = 0
    for batch in _batches(corpus, part, source):
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


def check_sources(corpus: Artifact, part: str, table: str, sources: Iterable[str]) -> Iterator[Finding]:
    """Every source of the corpus that has documents has a stream.

    Args:
        table: the table of shards, which should name it.
    """
    there = {path.rpartition("/")[0].removeprefix(f"{part}/") for path in _files(corpus, f"{part}/")}
    for source in sorted(there - set(sources)):
        count = sum(_count(corpus, path) for path in _files(corpus, f"{part}/{source}/"))
        if count:
            yield Finding(table, "source", f"has no shard of {source!r}, of which {corpus.id} has {count:,} documents")


def _files(corpus: Artifact, prefix: str) -> list[str]:
    return [entry.path for entry in corpus.files(prefix) if entry.path.endswith(".parquet")]


def _count(corpus: Artifact, path: str) -> int:
    with _opened(corpus, path) as file:
        return int(file.metadata.num_rows)


def _batches(corpus: Artifact, part: str, source: str) -> Iterator[pa.RecordBatch]:
    for path in _files(corpus, f"{part}/{source}/"):
        with _opened(corpus, path) as file:
            yield from file.iter_batches(batch_size=_BATCH, columns=list(COLUMNS))


@contextmanager
def _opened(corpus: Artifact, path: str) -> Iterator[pq.ParquetFile]:
    with corpus.open(path) as stream:
        try:
            yield pq.ParquetFile(stream)
        except pa.ArrowException as error:
            where = corpus.store.where(f"{corpus.folder}/{path}")
            raise InputError(
                f"{where} cannot be read: {error}; `headwater verify` says what else is damaged"
            ) from error
