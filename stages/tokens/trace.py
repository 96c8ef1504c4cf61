"""From batches to documents and back, by arithmetic: the order, the tables of documents and their indexes.

No token is read. A position gives a sample (rows of a shard), a binary search in the table of documents gives what lies
in it; an index leads from a document's id or uri to its tokens' place, that to rows, and the order, run backwards, to
every position at which they came.
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


class Seen(NamedTuple):
    """A part of a document in one sample."""

    position: int
    source: str
    doc_id: str
    uri: str
    license: str
    offset: int
    """Token of the document with which the part begins."""
    tokens: int
    """Tokens of the part, EOS not counted."""
    of: int
    """Tokens of the whole document."""


def tables_folder(store: Store, folder: str) -> Path:
    """The local folder of a tokens artifact with all that tracing reads; from an object store no shard is fetched.

    On a local store its manifest is not read: it names every shard, which at a billion rows takes longer than the rest.

    Raises:
        StoreError: the artifact is gone.
    """
    if store.is_local and store.exists(f"{folder}/{MANIFEST}"):
        return store.local_path(folder)
    tokens = load(store, folder)
    if tokens is None:
        raise StoreError(f"the tokens in {store.where(folder)} are gone; make them again from their recipe")
    for path in (STREAM, "docs/", "index/", "heldout/docs/", "heldout/index/", f"heldout/{SHARDS}"):
        tokens.local(path)
    return tokens.local(SHARDS).parent


def documents_at(order: Order, reader: TokenReader, positions: ArrayLike) -> list[Seen]:
    """What lies in the samples at some positions, which must share one k: in their order, and in the order of the text.

    Raises:
        IndexError: a position outside the run.
    """
    found = order.at(positions)
    lines = []
    for position, (source, shard, row) in zip(np.ravel(positions).tolist(), found.triples.tolist(), strict=True):
        name = reader.shards.sources[source]
        for span in reader.documents(source, shard, row, found.k):
            length = reader.document(source, span.document).length
            lines.append(Seen(position, name, *span[1:4], offset=span.offset, tokens=span.length, of=length))
    return lines


def named(reader: TokenReader, name: str) -> list[Document]:
    """The documents with this `doc_id`, else those with this `uri`."""
    return reader.find(doc_id=name) or reader.find(uri=name)


def sightings(order: Order, reader: TokenReader, documents: list[Document]) -> list[Seen]:
    """Every sample of the run in which some of these documents' tokens lie, by position.

    A document that lies in several rows of a sample is there once.
    """
    return sorted(line for document in documents for line in _sightings(order, reader, document))


def _sightings(order: Order, reader: TokenReader, document: Document) -> Iterator[Seen]:
    if not document.length:
        return
    length, end = reader.sequence_length, document.start + document.length
    rows = np.arange(document.start // length, (end - 1) // length + 1, dtype=np.int64)
    shard, row = np.divmod(rows, reader.shard_rows)
    which, positions = order.occurrences(document.source, shard, row)
    positions, first = np.unique(positions, return_index=True)
    for position, index in zip(positions.tolist(), which[first].tolist(), strict=True):
        k = order.k_at(position)
        # A sample is k rows of one shard that begin at a multiple of k.
        low = int(rows[index] - row[index] % k) * length
        begin, stop = max(document.start, low), min(end, low + k * length)
        yield Seen(
            position,
            reader.shards.sources[document.source],
            document.doc_id,
            document.uri,
            document.license,
            offset=begin - document.start,
            tokens=stop - begin,
            of=document.length,
        )
