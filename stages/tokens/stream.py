"""From documents in Parquet to a source's token stream: batches are encoded (on all threads) and written one by one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from stages.artifact.artifact import Artifact
from stages.artifact.errors import InputError
from stages.tokens.shards import DocumentWriter, ShardWriter
from stages.tokens.tokenizer import TextTokenizer

COLUMNS = ("doc_id", "text", "uri", "license")
_BATCH = 512
"""Documents encoded at once: about a megabyte of text, enough to keep every thread busy and little to hold."""

_THREADS = "RAYON_NUM_THREADS"


@dataclass(frozen=True)
class DocumentFiles:
    """The Parquet files of one source in a corpus artifact, in corpus order."""

    corpus: Artifact
    source: str
    paths: tuple[str, ...]

    def batches(self, columns: Sequence[str] = COLUMNS, size: int = _BATCH) -> Iterator[pa.RecordBatch]:
        """Record batches of some columns; only one batch is held.

        Raises:
            InputError: a file that is no Parquet, misses a column, or has a document without text.
        """
        for path in self.paths:
            with self._file(path) as file:
                where, names = self._where(path), file.schema_arrow.names
                missing = [name for name in columns if name not in names]
                if missing:
                    raise InputError(f"tokens: {where} has no column {missing[0]!r}; there are {', '.join(names)}")
                for batch in file.iter_batches(batch_size=size, columns=list(columns)):
                    if any(column.null_count for column in batch.columns):
                        raise InputError(f"tokens: {where} holds a document without one of {', '.join(columns)}")
                    yield batch

    def text_bytes(self) -> int:
        """About the bytes of text, from the files' footers: nothing is read but those."""
        total = 0
        for path in self.paths:
            with self._file(path) as file:
                footer = file.metadata
            for group in range(footer.num_row_groups):
                for number in range(footer.num_columns):
                    column = footer.row_group(group).column(number)
                    if column.path_in_schema == "text":
                        total += column.total_uncompressed_size
        return total

    @contextmanager
    def _file(self, path: str) -> Iterator[pq.ParquetFile]:
        with self.corpus.open(path) as stream:
            try:
                yield pq.ParquetFile(stream)
            except pa.ArrowException as error:
                raise InputError(f"tokens: {self._where(path)} cannot be read: {error}") from error

    def _where(self, path: str) -> str:
        return f"{self.corpus.store.path(self.corpus.folder)}/{path}"


def document_files(corpus: Artifact, part: str) -> list[DocumentFiles]:
    """The sources below `part` ("documents" or "heldout") of a corpus artifact, by name."""
    found: dict[str, list[str]] = {}
    for entry in corpus.files(f"{part}/"):
        if entry.path.endswith(".parquet"):
            found.setdefault(entry.path[len(part) + 1 : entry.path.rindex("/")], []).append(entry.path)
    return [DocumentFiles(corpus, source, tuple(paths)) for source, paths in sorted(found.items())]


def sample_texts(sources: Sequence[DocumentFiles], most_bytes: int) -> Iterator[list[str]]:
    """Batches of about `most_bytes` of text from all sources, each by its size.

    A document is in by its `doc_id`, which is a hash: neither order nor file boundaries matter.
    """
    total = sum(source.text_bytes() for source in sources)
    # ids are hexadecimal, so the first eight digits compare as numbers do
    bound = f"{int(most_bytes / total * 2**32):08x}" if total > most_bytes else None
    for source in sources:
        for batch in source.batches(("doc_id", "text")):
            if bound is not None:
                batch = batch.filter(pc.less(pc.utf8_slice_codeunits(batch.column(0), 0, 8), bound))
            if batch.num_rows:
                yield batch.column(1).to_pylist()


def encode_source(
    files: DocumentFiles,
    tokenizer: TextTokenizer,
    shards: ShardWriter,
    documents: DocumentWriter,
    tell: Callable[[int], None],
) -> int:
    """Encodes a source: its documents in order, each ended by EOS.

    Args:
        tell: called with the bytes of text done since the last call.

    Returns:
        Bytes of text.
    """
    total = 0
    for batch in files.batches():
        tokens, lengths = _encode(tokenizer, batch.column("text"))
        sizes = pc.binary_length(batch.column("text")).to_numpy(zero_copy_only=False).astype(np.int64)
        shards.add(tokens)
        documents.add([batch.column(name) for name in ("doc_id", "uri", "license")], lengths, sizes)
        total += int(sizes.sum())
        tell(int(sizes.sum()))
    return total


def _encode(tokenizer: TextTokenizer, texts: pa.StringArray) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """(tokens with an EOS after each document uint32 [T], tokens of each without EOS int64 [n])."""
    ids = tokenizer.encode(texts.to_pylist())
    lengths = np.fromiter((len(item) for item in ids), dtype=np.int64, count=len(ids))
    ends = np.cumsum(lengths + 1)
    tokens = np.empty(int(ends[-1]) if len(ends) else 0, dtype=np.uint32)
    for item, end in zip(ids, ends.tolist(), strict=True):
        tokens[end - 1 - len(item) : end - 1] = item
    tokens[ends - 1] = tokenizer.eos_id
    if int((tokens == tokenizer.eos_id).sum()) != len(ids):
        raise InputError(
            f"tokens: the tokenizer turned text into its own end of text ({tokenizer.eos}); documents could not be "
            "told apart. Use another tokenizer, or train one"
        )
    return tokens, lengths


@contextmanager
def threads(workers: int) -> Iterator[None]:
    """Bounds the tokenizer library's threads, as far as this process has not started them yet; 0: every core.

    The library reads the number once, when it first works in parallel.
    """
    if not workers or _THREADS in os.environ:
        yield
        return
    os.environ[_THREADS] = str(workers)
    try:
        yield
    finally:
        del os.environ[_THREADS]
