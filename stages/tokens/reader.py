"""Reading a token stream: rows as views of mapped files, and the documents in them."""

from __future__ import annotations

import bisect
import json
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from stages.store.errors import StoreError
from stages.tokens.fetch import Fetch, LocalFetch
from stages.tokens.mapped import SLOTS, MappedShards
from stages.tokens.shard_file import ShardFormat, open_shard
from stages.tokens.table import ShardTable, values_of

STREAM = "stream.json"
"""Beside the shards: sequence_length, vocabulary_size, eos_id, shard_rows, dtype."""

_OPEN_SHARDS = 256
"""Maximum shards that stay open for views; each takes a file descriptor."""


class DocumentSpan(NamedTuple):
    """The part of a document in some rows."""

    document: int
    """Number of the document in its source's stream."""
    doc_id: str
    uri: str
    license: str
    offset: int
    """Index in the document of the part's first token."""
    length: int
    """Tokens of the part, without EOS."""
    place: int
    """Index in the rows of the part's first token."""


class Document(NamedTuple):
    """One line of a source's table of documents."""

    source: int
    document: int
    doc_id: str
    uri: str
    license: str
    start: int
    """First token in the source's stream."""
    length: int
    """Tokens without EOS; the EOS is token `start + length` of the stream."""
    bytes: int
    """UTF-8 bytes of its text."""


class TokenReader:
    """The token stream of a tokens artifact.

    Args:
        folder: the artifact's local folder.
        split: "" for training documents, "heldout" for the held-out ones. Each split numbers its own sources.
        fetch: returns a shard's local file; by default the one in the folder.

    Raises:
        StoreError: the folder holds no token stream.
    """

    def __init__(self, folder: Path | str, split: str = "", fetch: Fetch | None = None):
        self.folder, self.split = Path(folder), split
        info = _stream(self.folder / STREAM)
        self.sequence_length: int = info["sequence_length"]
        self.vocabulary_size: int = info["vocabulary_size"]
        self.eos_id: int = info["eos_id"]
        self.shard_rows: int = info["shard_rows"]
        self.form = ShardFormat(self.sequence_length, np.dtype(info["dtype"]))
        self.shards = ShardTable.load(self.folder, split)
        self.fetch = fetch or LocalFetch(self.folder / split)
        self._open: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._documents: dict[int, _Documents] = {}

    @cached_property
    def token_bytes(self) -> NDArray[np.int32]:
        """int32 [V]: UTF-8 bytes that each token stands for; 0 for special tokens."""
        return np.load(self.folder / "token_bytes.npy", mmap_mode="r", allow_pickle=False)

    def mapped(self, slots: int = SLOTS) -> MappedShards:
        """A new array over all shards, with `slots` of them mapped at once, for a consumer such as a loader."""
        return MappedShards(self.shards, self.form, self.fetch, slots)

    @cached_property
    def _mapped(self) -> MappedShards:
        return self.mapped()

    def shard(self, source: int, shard: int) -> NDArray[Any]:
        """A whole shard as a view of the mapped file: uint16 or uint32 [rows, S].

        Raises:
            StoreError: it is missing, truncated, or contradicts stream.json or the table.
        """
        key = (source, shard)
        found = self._open.get(key)
        if found is None:
            size = int(self.shards.bytes[source][shard]) if self.shards.bytes else None
            path = self.fetch(self.shards.sources[source], shard)
            found = open_shard(path, self.form, int(self.shards.rows[source][shard]), size).tokens
            self._open[key] = found
            while len(self._open) > _OPEN_SHARDS:
                self._open.popitem(last=False)
        else:
            self._open.move_to_end(key)
        return found

    def rows(self, source: int, shard: int, first_row: int, count: int = 1) -> NDArray[Any]:
        """Consecutive rows as a view of the mapped file, never a copy: uint16 or uint32 [count * S].

        Raises:
            IndexError: rows outside the shard.
        """
        whole = self.shard(source, shard)
        if first_row < 0 or first_row + count > len(whole):
            raise IndexError(f"tokens: rows {first_row} to {first_row + count - 1} of a shard with {len(whole)} rows")
        return whole[first_row : first_row + count].reshape(-1)

    def batch(self, triples: ArrayLike | Iterable[Sequence[int]], rows_per_sample: int = 1) -> NDArray[np.int64]:
        """Samples as one array: int64 [n, rows_per_sample * S].

        Args:
            triples: n times (source, shard, first row), for instance `order.at(positions).triples`.

        Raises:
            StoreError: a shard is missing or damaged.
            IndexError: rows outside a shard.
        """
        where = np.asarray(triples if isinstance(triples, np.ndarray) else list(triples), dtype=np.int64)  # type: ignore[arg-type]
        source, shard, row = where.reshape(-1, 3).T
        return self._mapped.gather(source, shard, row, rows_per_sample).astype(np.int64)

    def documents(self, source: int, shard: int, row: int, count: int = 1) -> list[DocumentSpan]:
        """The documents with tokens in `count` rows, in order; one with only its EOS in them is omitted."""
        low = self._row_number(source, shard, row) * self.sequence_length
        high = low + count * self.sequence_length
        table = self._table(source)
        spans = []
        for document in range(table.containing(low), table.count):
            entry = table.get(document)
            if entry.start >= high:
                break
            begin, end = max(entry.start, low), min(entry.start + entry.length, high)
            if begin < end:
                place = begin - low
                spans.append(
                    DocumentSpan(
                        document, entry.doc_id, entry.uri, entry.license, begin - entry.start, end - begin, place
                    )
                )
        return spans

    def document(self, source: int, document: int) -> Document:
        """One line of a source's table of documents."""
        return self._table(source).get(document)

    def document_count(self, source: int) -> int:
        """Documents in a source's stream."""
        return self._table(source).count

    def find(self, doc_id: str | None = None, uri: str | None = None) -> list[Document]:
        """All documents with this `doc_id` or this `uri`, in every source. Ids are not unique in real data."""
        if (doc_id is None) == (uri is None):
            raise TypeError("find: give either doc_id or uri")
        column, value = ("doc_id", doc_id) if doc_id is not None else ("uri", uri)
        return [
            self._table(source).get(document)
            for source in range(len(self.shards.sources))
            for document in self._table(source).lookup(column, str(value))
        ]

    def _row_number(self, source: int, shard: int, row: int) -> int:
        if not 0 <= shard < len(self.shards.rows[source]) or not 0 <= row < self.shards.rows[source][shard]:
            raise IndexError(f"tokens: source {self.shards.sources[source]!r} has no row {row} in shard {shard}")
        return shard * self.shard_rows + row

    def _table(self, source: int) -> _Documents:
        if source not in self._documents:
            table = _Documents(self.folder / self.split, self.shards.sources[source], source)
            if self.shards.tokens:
                table.check(int(self.shards.tokens[source].sum()))
            self._documents[source] = table
        return self._documents[source]


@dataclass
class _Columns:
    """One record batch of a table of documents."""

    doc_id: pa.StringArray
    uri: pa.StringArray
    license: pa.StringArray
    start: NDArray[np.int64]
    length: NDArray[np.int64]
    bytes: NDArray[np.int64]


class _Documents:
    """A source's mapped table of documents with its indexes. All record batches but the last have equal length."""

    def __init__(self, folder: Path, source: str, number: int):
        self.source = number
        self.path = folder / "docs" / f"{source}.arrow"
        file = _open(self.path)
        self.batches = []
        for index in range(file.num_record_batches):
            batch = file.get_batch(index)
            texts = (batch.column(name) for name in ("doc_id", "uri", "license"))
            numbers = (values_of(batch.column(name)) for name in ("start", "length", "bytes"))
            self.batches.append(_Columns(*texts, *numbers))
        self.size = len(self.batches[0].start) if self.batches else 1
        self.count = sum(len(batch.start) for batch in self.batches)
        self.first_starts = np.array([batch.start[0] for batch in self.batches], dtype=np.int64)
        self.index_folder, self.name = folder / "index", source
        self.indexes: dict[str, NDArray[np.int64]] = {}

    def check(self, tokens: int) -> None:
        """Raises StoreError for a table that does not end where the source's stream does."""
        last = self.get(self.count - 1) if self.count else None
        end = last.start + last.length + 1 if last else 0
        if end != tokens:
            raise StoreError(
                f"tokens: {self.path} ends at token {end} (`start`, `length`), but `tokens` in shards.parquet sums to "
                f"{tokens}: the table belongs to another stream"
            )

    def get(self, document: int) -> Document:
        index, line = divmod(document, self.size)
        batch = self.batches[index]
        return Document(
            self.source,
            document,
            batch.doc_id[line].as_py(),
            batch.uri[line].as_py(),
            batch.license[line].as_py(),
            int(batch.start[line]),
            int(batch.length[line]),
            int(batch.bytes[line]),
        )

    def containing(self, token: int) -> int:
        """The document that a token of the stream belongs to; the last one for the padding after it."""
        index = int(np.searchsorted(self.first_starts, token, side="right")) - 1
        return index * self.size + int(np.searchsorted(self.batches[index].start, token, side="right")) - 1

    def lookup(self, column: str, value: str) -> list[int]:
        """Documents whose `column` is `value`, by binary search in the sorted index."""
        if column not in self.indexes:
            path = self.index_folder / f"{self.name}.{column}.npy"
            self.indexes[column] = np.load(path, mmap_mode="r", allow_pickle=False)
        order = self.indexes[column]

        def key(document: int) -> bytes:
            index, line = divmod(int(document), self.size)
            return bytes(getattr(self.batches[index], column)[line].as_buffer())

        wanted = value.encode()
        low = bisect.bisect_left(order, wanted, key=key)
        high = bisect.bisect_right(order, wanted, lo=low, key=key)
        return sorted(int(document) for document in order[low:high])


def _stream(path: Path) -> dict[str, Any]:
    """The validated content of `stream.json`."""
    try:
        info = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise StoreError(f"tokens: cannot read {path}: {error}") from error
    least = {"sequence_length": 1, "vocabulary_size": 1, "eos_id": 0, "shard_rows": 1}
    for name, low in least.items():
        value = info.get(name) if isinstance(info, dict) else None
        if type(value) is not int or value < low:
            raise StoreError(f"tokens: {path}: {name} is {value!r}; it must be an integer of at least {low}")
    if info.get("dtype") not in ("uint16", "uint32"):
        raise StoreError(f"tokens: {path}: dtype is {info.get('dtype')!r}; it must be uint16 or uint32")
    return info


def _open(path: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"tokens: cannot read {path}: {error}") from error
