"""Reading a token stream: rows as views of mapped files, and which documents they are made of."""

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

from stages.artifact.errors import StoreError
from stages.tokens.table import ShardTable

STREAM = "stream.json"
"""Beside the shards: sequence_length, vocabulary_size, eos_id, shard_rows, dtype."""

_OPEN_SHARDS = 256
"""Shards kept mapped; each holds a file descriptor."""


class DocumentSpan(NamedTuple):
    """The part of a document that lies in some rows."""

    document: int
    """Number of the document in its source's stream."""
    doc_id: str
    uri: str
    license: str
    offset: int
    """Token of the document with which the part begins."""
    length: int
    """Tokens of the part, EOS not counted."""
    place: int
    """Token of the rows at which the part begins."""


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
    """Tokens, EOS not counted; the EOS is token `start + length` of the stream."""
    bytes: int
    """UTF-8 bytes of its text."""


class TokenReader:
    """The token stream of a tokens artifact.

    Args:
        folder: the artifact's local folder.
        part: "" for training documents, "heldout" for the held-out ones. Sources are numbered apart in each.

    Raises:
        StoreError: the folder holds no token stream.
    """

    def __init__(self, folder: Path | str, part: str = ""):
        self.folder, self.part = Path(folder), part
        try:
            info: dict[str, Any] = json.loads((self.folder / STREAM).read_bytes())
        except (OSError, ValueError) as error:
            raise StoreError(f"tokens: cannot read {self.folder / STREAM}: {error}") from error
        self.sequence_length: int = info["sequence_length"]
        self.vocabulary_size: int = info["vocabulary_size"]
        self.eos_id: int = info["eos_id"]
        self.shard_rows: int = info["shard_rows"]
        self.shards = ShardTable.load(self.folder, part)
        self._mapped: OrderedDict[tuple[int, int], NDArray[Any]] = OrderedDict()
        self._documents: dict[int, _Documents] = {}

    @cached_property
    def token_bytes(self) -> NDArray[np.int32]:
        """int32 [V]: UTF-8 bytes that each token stands for; 0 for special tokens."""
        return np.load(self.folder / "token_bytes.npy", mmap_mode="r")

    def shard(self, source: int, shard: int) -> NDArray[Any]:
        """A whole shard as a view of the mapped file: uint16 or uint32 [rows, S]."""
        key = (source, shard)
        found = self._mapped.get(key)
        if found is None:
            name = f"{self.shards.sources[source]}/{shard:05}.arrow"
            path = self.folder / self.part / "shards" / name
            column = _open(path).get_batch(0).column(0)
            found = column.values.to_numpy(zero_copy_only=True).reshape(len(column), self.sequence_length)
            self._mapped[key] = found
            while len(self._mapped) > _OPEN_SHARDS:
                self._mapped.popitem(last=False)
        else:
            self._mapped.move_to_end(key)
        return found

    def rows(self, source: int, shard: int, first_row: int, k: int = 1) -> NDArray[Any]:
        """k consecutive rows as a view of the mapped file, never a copy: uint16 or uint32 [k * S].

        Raises:
            IndexError: rows outside the shard.
        """
        whole = self.shard(source, shard)
        if first_row < 0 or first_row + k > len(whole):
            raise IndexError(f"tokens: rows {first_row} to {first_row + k - 1} of a shard with {len(whole)} rows")
        return whole[first_row : first_row + k].reshape(-1)

    def batch(self, triples: ArrayLike | Iterable[Sequence[int]], k: int = 1) -> NDArray[np.int64]:
        """Samples as one array: int64 [n, k * S].

        Args:
            triples: n times (source, shard, first row), for instance `order.at(positions).triples`.
            k: rows a sample.
        """
        where = np.asarray(triples if isinstance(triples, np.ndarray) else list(triples), dtype=np.int64)  # type: ignore[arg-type]
        where = where.reshape(-1, 3)
        out = np.empty((len(where), k * self.sequence_length), dtype=np.int64)
        for line, (source, shard, row) in zip(out, where.tolist(), strict=True):
            line[:] = self.rows(source, shard, row, k)
        return out

    def documents(self, source: int, shard: int, row: int, k: int = 1) -> list[DocumentSpan]:
        """The documents whose tokens lie in k rows, in order. One that has only its EOS there is left out."""
        low = self._row_number(source, shard, row) * self.sequence_length
        high = low + k * self.sequence_length
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
        """All documents with this `doc_id` or this `uri`, in every source. Records' ids repeat in real data."""
        if (doc_id is None) == (uri is None):
            raise TypeError("find: give doc_id or uri")
        column, value = ("doc_id", doc_id) if doc_id is not None else ("uri", uri)
        return [
            self._table(source).get(document)
            for source in range(len(self.shards.sources))
            for document in self._table(source).lookup(column, str(value))
        ]

    def rows_of(self, doc_id: str | None = None, uri: str | None = None) -> list[tuple[int, int, int]]:
        """The (source, shard, row) of every row that holds a token of a document: the way back from `documents`."""
        found = []
        for entry in self.find(doc_id, uri):
            if not entry.length:
                continue
            first = entry.start // self.sequence_length
            last = (entry.start + entry.length - 1) // self.sequence_length
            found += [(entry.source, *divmod(number, self.shard_rows)) for number in range(first, last + 1)]
        return found

    def _row_number(self, source: int, shard: int, row: int) -> int:
        if not 0 <= shard < len(self.shards.rows[source]) or not 0 <= row < self.shards.rows[source][shard]:
            raise IndexError(f"tokens: source {self.shards.sources[source]!r} has no row {row} in shard {shard}")
        return shard * self.shard_rows + row

    def _table(self, source: int) -> _Documents:
        if source not in self._documents:
            self._documents[source] = _Documents(self.folder / self.part, self.shards.sources[source], source)
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
    """A source's mapped table of documents with its indexes. All record batches but the last are equally long."""

    def __init__(self, folder: Path, source: str, number: int):
        self.source = number
        file = _open(folder / "docs" / f"{source}.arrow")
        self.batches = []
        for index in range(file.num_record_batches):
            batch = file.get_batch(index)
            texts = (batch.column(name) for name in ("doc_id", "uri", "license"))
            numbers = (batch.column(name).to_numpy(zero_copy_only=True) for name in ("start", "length", "bytes"))
            self.batches.append(_Columns(*texts, *numbers))
        self.size = len(self.batches[0].start) if self.batches else 1
        self.count = sum(len(batch.start) for batch in self.batches)
        self.first_starts = np.array([batch.start[0] for batch in self.batches], dtype=np.int64)
        self.index_folder, self.name = folder / "index", source
        self.indexes: dict[str, NDArray[np.int64]] = {}

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
        """The document that a token of the stream belongs to; for the filler after the last one, the last one."""
        index = int(np.searchsorted(self.first_starts, token, side="right")) - 1
        return index * self.size + int(np.searchsorted(self.batches[index].start, token, side="right")) - 1

    def lookup(self, column: str, value: str) -> list[int]:
        """Documents whose `column` is `value`, by binary search in the sorted permutation."""
        if column not in self.indexes:
            path = self.index_folder / f"{self.name}.{column}.npy"
            self.indexes[column] = np.load(path, mmap_mode="r")
        order = self.indexes[column]

        def key(document: int) -> bytes:
            index, line = divmod(int(document), self.size)
            return bytes(getattr(self.batches[index], column)[line].as_buffer())

        wanted = value.encode()
        low = bisect.bisect_left(order, wanted, key=key)
        high = bisect.bisect_right(order, wanted, lo=low, key=key)
        return sorted(int(document) for document in order[low:high])


def _open(path: Path) -> pa.ipc.RecordBatchFileReader:
    try:
        return pa.ipc.open_file(pa.memory_map(str(path)))
    except (OSError, pa.ArrowInvalid) as error:
        raise StoreError(f"tokens: cannot read {path}: {error}") from error
