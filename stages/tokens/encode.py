"""All sources of a corpus to token streams on disk: parts are encoded side by side, and each goes to its place.

Where a part begins is the sum of the tokens of those before it, so a thread that has encoded one waits until those are
counted, and then writes it straight into the shards. Threads do it: encoders, Arrow, numpy and hashes work outside
Python's lock. Which parts there are, and what is in them, follows from the corpus alone, so the streams do not depend
on the number of threads.

In memory are, for each thread, one batch of documents (8 MiB of text, or one document that is longer) with its ids, and
the tokens of one part (of 32 MiB of text); and the table of the documents of one source while its indexes are sorted.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from threading import BoundedSemaphore
from typing import Any, TypeVar

from stages.store.artifact import ArtifactWriter
from stages.tokens.documents_table import write_documents
from stages.tokens.encoder import Encoded, Encoder, Texts
from stages.tokens.parts import EncodedPart, Part, PartedStream, encode_part, find_part, write_part
from stages.tokens.shard_files import ShardFiles
from stages.tokens.stream import DocumentFiles, RowGroups, StreamFormat

T = TypeVar("T")

READERS_A_WORKER = 2
"""Threads a worker where the corpus is on an object store: one waits for bytes while another encodes."""


@dataclass(frozen=True)
class Source:
    """One source of one part of the corpus, and its place in the artifact."""

    prefix: str
    """"" for training, "heldout/" for held-out documents."""
    files: DocumentFiles

    @property
    def name(self) -> str:
        return self.files.source


@dataclass(frozen=True)
class Written:
    """What was written of a source."""

    documents: int
    bytes: int
    tokens: int
    shards: list[dict[str, Any]]
    """Lines for `shards.parquet`."""

    @property
    def counts(self) -> dict[str, int]:
        rows = sum(line["rows"] for line in self.shards)
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "rows": rows,
            "shards": len(self.shards),
        }


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_sources(
    sources: Sequence[Source],
    encoder: Encoder,
    form: StreamFormat,
    key: bytes,
    workers: int,
    writer: ArtifactWriter,
    tell: Callable[[int], None],
) -> list[PartedStream]:
    """Encodes every source into parts in the writer's `kept` folder; those of an earlier attempt are not made again.

    Args:
        key: what parts depend on besides the corpus.
        tell: called with the bytes of text done since the last call.
    """
    remote = any(not source.files.corpus.store.is_local for source in sources)
    bounded = _Bounded(encoder, workers) if remote else encoder
    calls, shards = [], []
    for source in sources:
        folder = writer.kept(f"parts/{source.prefix}{source.name}")
        for left in folder.glob(".*.tmp"):
            left.unlink(missing_ok=True)
        files = ShardFiles(writer.kept(f"shards/{source.prefix}{source.name}"), form)
        shards.append(files)
        starts = _starts(len(source.files.parts))
        for number, groups in enumerate(source.files.parts):
            path = folder / f"{number:06}.part"
            encode = partial(encode_part, source.files, groups, bounded, form)
            calls.append(partial(_part, path, _key(key, source, groups), encode, files, *starts[number : number + 2]))
    streams, found = [], 0
    with ThreadPoolExecutor(workers * READERS_A_WORKER if remote else workers) as pool:
        parts = side_by_side(pool, calls)
        for source, files in zip(sources, shards, strict=True):
            here = []
            for _ in source.files.parts:
                part, was_there = next(parts)
                here.append(part)
                found += was_there
                tell(part.text_bytes)
            streams.append(PartedStream(here, files))
    writer.events.emit("parts", parts=len(calls), found=found)
    return streams


def write_streams(
    sources: Sequence[Source], streams: Sequence[PartedStream], workers: int, writer: ArtifactWriter
) -> list[Written]:
    """Finishes every stream's shards, and writes the tables of documents."""
    calls: list[Callable[[], Any]] = []
    for source, stream in zip(sources, streams, strict=True):
        calls.append(partial(_documents, source, stream, writer))
        calls += [partial(_shard, source, stream, number, writer) for number in _shards(stream)]
    written = []
    with ThreadPoolExecutor(workers) as pool:
        results = side_by_side(pool, calls)
        for stream in streams:
            documents = next(results)
            lines = [next(results) for _ in _shards(stream)]
            written.append(Written(documents, stream.text_bytes, stream.tokens, lines))
    return written


def side_by_side(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Results in the order of the calls. After an error, or when nobody asks any more, no further call begins."""
    return _results([pool.submit(call) for call in calls])


def _results(futures: Sequence[Future[T]]) -> Iterator[T]:
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in reversed(futures):  # so that none begins which waits for one that will not
            future.cancel()


def _starts(parts: int) -> list[Future[int]]:
    """The first token of each part of a stream, and its end; of the first part it is known."""
    starts: list[Future[int]] = [Future() for _ in range(parts + 1)]
    starts[0].set_result(0)
    return starts


def _part(
    path: Path,
    key: bytes,
    encode: Callable[[], EncodedPart],
    shards: ShardFiles,
    start: Future[int],
    end: Future[int],
) -> tuple[Part, bool]:
    """The part, and whether it was there. `end` is told as soon as it is known: the next part waits for it."""
    try:
        part: Part | EncodedPart = find_part(path, key, shards) or encode()
        first = start.result()
        if isinstance(part, Part) and part.start != first:  # the parts before it are not those that it was made after
            part = encode()
        end.set_result(first + part.count)
    except BaseException as error:
        end.set_exception(error)
        raise
    return (part, True) if isinstance(part, Part) else (write_part(path, key, first, part, shards), False)


def _key(key: bytes, source: Source, groups: RowGroups) -> bytes:
    of = f"{source.files.corpus.digest} {groups.path} {groups.groups.start} {groups.groups.stop}"
    return hashlib.blake2b(key + of.encode(), digest_size=16).digest()


def _documents(source: Source, stream: PartedStream, writer: ArtifactWriter) -> int:
    return write_documents(stream, lambda path: writer.file(source.prefix + path), source.name)


def _shards(stream: PartedStream) -> range:
    return range(stream.shards.count(stream.tokens))


def _shard(source: Source, stream: PartedStream, number: int, writer: ArtifactWriter) -> dict[str, Any]:
    line = stream.shards.finish(number, stream.tokens)
    path = f"{source.prefix}shards/{source.name}/{number:05}.arrow"
    writer.take(path, stream.shards.path(number), line["sha256"])
    return {"source": source.name, **line}


class _Bounded:
    """An encoder that so many threads use at the same time."""

    def __init__(self, encoder: Encoder, most: int):
        self.name, self._encoder, self._slots = encoder.name, encoder, BoundedSemaphore(most)

    def encode(self, texts: Texts) -> Encoded:
        with self._slots:
            return self._encoder.encode(texts)
