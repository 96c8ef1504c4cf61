"""Reading a corpus's documents from Parquet in parts and batches, and appending EOS to their ids."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.store.artifact import Artifact
from stages.store.errors import InputError

COLUMNS = ("doc_id", "text", "uri", "license")
BATCH_BYTES = 8 << 20
"""Text read and encoded at once: little memory, but enough that the 2 ms of an encoder's call are negligible."""
PART_BYTES = 32 << 20
"""Text in a part: the unit that one thread encodes, and that a restart after a crash does not encode again."""
BATCH_ROWS = 1 << 14
"""Maximum documents read at once."""

_THREADS = "RAYON_NUM_THREADS"


@dataclass(frozen=True)
class StreamFormat:
    """Format of a token stream."""

    sequence_length: int
    """Tokens in a row (S)."""
    shard_rows: int
    vocabulary_size: int
    """All ids are smaller."""
    eos_id: int
    eos: str

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint16, or uint32 if ids need it."""
        return np.dtype(np.uint16 if self.vocabulary_size <= 1 << 16 else np.uint32)

    @property
    def shard_tokens(self) -> int:
        """Tokens in a whole shard."""
        return self.sequence_length * self.shard_rows


@dataclass(frozen=True)
class RowGroups:
    """Consecutive row groups of one Parquet file."""

    path: str
    groups: range
    rows: int
    bytes: int
    """Approximate bytes of text."""


@dataclass(frozen=True)
class DocumentFiles:
    """The Parquet files of one source in a corpus artifact, in corpus order."""

    corpus: Artifact
    source: str
    paths: tuple[str, ...]

    @cached_property
    def parts(self) -> tuple[RowGroups, ...]:
        """The source in parts of about `PART_BYTES` of text, each within one file and not empty.

        They depend on the files alone, so that a second attempt finds the parts of the first.
        """
        found: list[RowGroups] = []
        for path in self.paths:
            with self._file(path) as file:
                footer = file.metadata
            first, rows, size = 0, 0, 0
            for number in range(footer.num_row_groups):
                group = footer.row_group(number)
                rows += group.num_rows
                size += _text_bytes(group)
                if size >= PART_BYTES or number == footer.num_row_groups - 1:
                    if rows:
                        found.append(RowGroups(path, range(first, number + 1), rows, size))
                    first, rows, size = number + 1, 0, 0
        return tuple(found)

    @property
    def text_bytes(self) -> int:
        """Approximate bytes of text, from the files' footers alone."""
        return sum(part.bytes for part in self.parts)

    def batches(self, columns: Sequence[str] = COLUMNS, rows: int | None = None) -> Iterator[pa.RecordBatch]:
        """Record batches of the whole source; see `read`."""
        for part in self.parts:
            yield from self.read(part, columns, rows)

    def read(
        self, part: RowGroups, columns: Sequence[str] = COLUMNS, rows: int | None = None
    ) -> Iterator[pa.RecordBatch]:
        """Record batches of about `BATCH_BYTES` of text, or of `rows` rows; one batch is in memory at a time.

        Raises:
            InputError: a file is not Parquet or truncated, lacks a column, or has a document without text.
        """
        rows = rows or min(BATCH_ROWS, max(1, BATCH_BYTES * part.rows // max(part.bytes, 1)))
        with self._file(part.path) as file:
            where, names = self._where(part.path), file.schema_arrow.names
            missing = [name for name in columns if name not in names]
            if missing:
                raise InputError(f"tokens: {where} has no column {missing[0]!r}; its columns: {', '.join(names)}")
            batches = file.iter_batches(rows, row_groups=[*part.groups], columns=list(columns), use_threads=False)
            for batch in batches:
                if any(column.null_count for column in batch.columns):
                    raise InputError(f"tokens: {where} has a document without one of {', '.join(columns)}")
                yield batch

    @contextmanager
    def _file(self, path: str) -> Iterator[pq.ParquetFile]:
        store, name = self.corpus.store, f"{self.corpus.folder}/{path}"
        with pa.OSFile(str(store.local_path(name))) if store.is_local else self.corpus.open(path) as stream:
            try:
                yield pq.ParquetFile(stream, pre_buffer=not store.is_local)
            except (pa.ArrowException, OSError) as error:
                if isinstance(error, OSError) and error.errno:
                    raise  # an error of the disk, not of the file's content
                raise InputError(
                    f"tokens: cannot read {self._where(path)}: {error}; run `headwater verify` to list the damaged "
                    "files of the corpus"
                ) from error

    def _where(self, path: str) -> str:
        return self.corpus.store.where(f"{self.corpus.folder}/{path}")


def document_files(corpus: Artifact, split: str) -> list[DocumentFiles]:
    """The sources in `split` ("documents" or "heldout") of a corpus artifact, by name."""
    found: dict[str, list[str]] = {}
    for entry in corpus.files(f"{split}/"):
        if entry.path.endswith(".parquet"):
            found.setdefault(entry.path[len(split) + 1 : entry.path.rindex("/")], []).append(entry.path)
    return [DocumentFiles(corpus, source, tuple(paths)) for source, paths in sorted(found.items())]


def sample_texts(sources: Sequence[DocumentFiles], max_bytes: int) -> Iterator[list[str]]:
    """Batches of about `max_bytes` of text from all sources, in proportion to their size.

    Documents are selected by `doc_id`, which is a hash, independent of their order and files.
    """
    total = sum(source.text_bytes for source in sources)
    # ids are hexadecimal, so their first eight digits compare like numbers
    bound = f"{int(max_bytes / total * 2**32):08x}" if total > max_bytes else None
    for source in sources:
        for batch in source.batches(("doc_id", "text")):
            if bound is not None:
                batch = batch.filter(pc.less(pc.utf8_slice_codeunits(batch.column(0), 0, 8), bound))
            if batch.num_rows:
                yield batch.column(1).to_pylist()


def first_texts(sources: Sequence[DocumentFiles], per_source: int = 64) -> Iterator[str]:
    """The first texts of all sources, interleaved."""
    batches = [next(source.batches(("text",), per_source), None) for source in sources]
    for texts in zip_longest(*(batch.column(0).to_pylist() for batch in batches if batch is not None)):
        yield from (text for text in texts if text is not None)


def append_eos(ids: NDArray[np.uint32], offsets: NDArray[np.int64], eos_id: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Documents' ids [T] with EOS after each of the n documents: dtype [T + n].

    Args:
        offsets: int64 [n + 1], the start of each document's ids, and T.
    """
    ends = offsets[1:] + np.arange(len(offsets) - 1)
    inside = np.ones(len(ids) + len(ends), dtype=bool)
    inside[ends] = False
    tokens = np.empty(len(inside), dtype=dtype)
    tokens[inside] = ids
    tokens[ends] = eos_id
    return tokens


@contextmanager
def limit_tokenizer_threads(workers: int) -> Iterator[None]:
    """Limits the tokenizer library's threads, if this process has not started them yet; 0: one per core.

    The library reads the limit once, when it first works in parallel.
    """
    if not workers or _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = str(workers)
    try:
        yield
    finally:
        del os.environ[_THREADS]


def _text_bytes(group: Any) -> int:
    columns = (group.column(number) for number in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in columns if column.path_in_schema == "text")
