"""From batches to documents and back, computed from the order, the tables of documents and their indexes.

No token is read. A position gives a sample (rows of a shard), a binary search in the table of documents finds its
documents; an index leads from a document's id or uri to the place of its tokens, that to rows, and the inverse of the
order to every position that reads them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from stages.store.artifact import load
from stages.store.errors import StoreError
from stages.store.manifest import MANIFEST
from stages.store.store import Store
from stages.tokens.order import Order
from stages.tokens.reader import STREAM, Document, TokenReader
from stages.tokens.table import SHARDS


class SampledDocument(NamedTuple):
    """The part of a document in one sample."""

    position: int
    source: str
    doc_id: str
    uri: str
    license: str
    offset: int
    """Index in the document of the part's first token."""
    tokens: int
    """Tokens of the part, without EOS."""
    of: int
    """Tokens of the whole document."""


def tables_folder(store: Store, folder: str) -> Path:
    """The local folder of a tokens artifact with all files that tracing reads; no shard is downloaded.

    On a local store the manifest is not read: it lists every shard, which at a billion rows takes longer than the rest.

    Raises:
        StoreError: the artifact does not exist any more.
    """
    if store.is_local and store.exists(f"{folder}/{MANIFEST}"):
        return store.local_path(folder)
    tokens = load(store, folder)
    if tokens is None:
        raise StoreError(f"tokens: {store.where(folder)} does not exist any more; run its recipe again to rebuild it")
    for path in (STREAM, "docs/", "index/", "heldout/docs/", "heldout/index/", f"heldout/{SHARDS}"):
        tokens.local(path)
    return tokens.local(SHARDS).parent


def documents_at(order: Order, reader: TokenReader, positions: ArrayLike) -> list[SampledDocument]:
    """The documents in the samples at some positions, which must share one sample length; in the order given, then in
    the order of the text.

    Raises:
        IndexError: a position outside the run.
    """
    found = order.at(positions)
    lines = []
    for position, (source, shard, row) in zip(np.ravel(positions).tolist(), found.triples.tolist(), strict=True):
        name = reader.shards.sources[source]
        for span in reader.documents(source, shard, row, found.rows_per_sample):
            length = reader.document(source, span.document).length
            lines.append(SampledDocument(position, name, *span[1:4], offset=span.offset, tokens=span.length, of=length))
    return lines


def find_documents(reader: TokenReader, name: str) -> list[Document]:
    """The documents with this `doc_id`; if there are none, those with this `uri`."""
    return reader.find(doc_id=name) or reader.find(uri=name)


def samples_of(order: Order, reader: TokenReader, documents: list[Document]) -> list[SampledDocument]:
    """Every sample of the run that contains tokens of these documents, by position.

    A document in several rows of a sample is listed once.
    """
    return sorted(line for document in documents for line in _samples_of(order, reader, document))


def _samples_of(order: Order, reader: TokenReader, document: Document) -> Iterator[SampledDocument]:
    if not document.length:
        return
    length, end = reader.sequence_length, document.start + document.length
    rows = np.arange(document.start // length, (end - 1) // length + 1, dtype=np.int64)
    shard, row = np.divmod(rows, reader.shard_rows)
    which, positions = order.occurrences(document.source, shard, row)
    positions, first = np.unique(positions, return_index=True)
    for position, index in zip(positions.tolist(), which[first].tolist(), strict=True):
        count = order.rows_per_sample_at(position)
        # A sample is `count` rows of one shard, the first of which is a multiple of `count`.
        low = int(rows[index] - row[index] % count) * length
        begin, stop = max(document.start, low), min(end, low + count * length)
        yield SampledDocument(
            position,
            reader.shards.sources[document.source],
            document.doc_id,
            document.uri,
            document.license,
            offset=begin - document.start,
            tokens=stop - begin,
            of=document.length,
        )
