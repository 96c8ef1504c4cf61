"""Encodes all sources of a corpus to token streams on disk: parts are encoded in parallel and written in place.

A part begins after the tokens of all parts before it, so a thread that has encoded one waits until those are counted,
and then writes it directly into the shards. Threads suffice: encoders, Arrow, numpy and hashing release the GIL. The
parts and their content depend on the corpus alone, so the streams do not depend on the number of threads.

Memory per thread: one batch of documents (8 MiB of text, or one longer document) with its ids, and the tokens of one
part (of 32 MiB of text); in addition the table of documents of one source while its indexes are sorted.
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
from stages.tokens.parts import EncodedPart, EncodedStream, Part, encode_part, find_part, write_part
from stages.tokens.shard_files import ShardFiles
from stages.tokens.stream import DocumentFiles, RowGroups, StreamFormat

T = TypeVar("T")

READERS_PER_WORKER = 2
"""Threads per worker if the corpus is on an object store: one waits for bytes while another encodes."""


@dataclass(frozen=True)
class Source:
    """One source of one split of the corpus, and its place in the artifact."""

    prefix: str
    """"" for training, "heldout/" for held-out documents."""
    files: DocumentFiles

    @property
    def name(self) -> str:
        return self.files.source


@dataclass(frozen=True)
class Written:
    """What was written for a source."""

    documents: int
    bytes: int
    tokens: int
    shards: list[dict[str, Any]]
    """Rows of `shards.parquet`."""

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
    """Cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def encode_sources(
    sources: Sequence[Source],
    encoder: Encoder,
    form: StreamFormat,
    key: bytes,
    workers: int,
    writer: ArtifactWriter,
    report: Callable[[int], None],
) -> list[EncodedStream]:
    """Encodes every source into parts in the writer's `resume_dir`; parts of an earlier attempt are reused.

    Args:
        key: hash of everything that parts depend on besides the corpus.
        report: called with the bytes of text done since the last call.
    """
    remote = any(not source.files.corpus.store.is_local for source in sources)
    bounded = _BoundedEncoder(encoder, workers) if remote else encoder
    calls, shards = [], []
    for source in sources:
        folder = writer.resume_dir(f"parts/{source.prefix}{source.name}")
        for leftover in folder.glob(".*.tmp"):
            leftover.unlink(missing_ok=True)
        files = ShardFiles(writer.resume_dir(f"shards/{source.prefix}{source.name}"), form)
        shards.append(files)
        starts = _starts(len(source.files.parts))
        for number, groups in enumerate(source.files.parts):
            path = folder / f"{number:06}.part"
            encode = partial(encode_part, source.files, groups, bounded, form)
            calls.append(partial(_part, path, _key(key, source, groups), encode, files, *starts[number : number + 2]))
    streams, found = [], 0
    with ThreadPoolExecutor(workers * READERS_PER_WORKER if remote else workers) as pool:
        parts = run_in_order(pool, calls)
        for source, files in zip(sources, shards, strict=True):
            of_source = []
            for _ in source.files.parts:
                part, cached = next(parts)
                of_source.append(part)
                found += cached
                report(part.text_bytes)
            streams.append(EncodedStream(of_source, files))
    writer.events.emit("parts", parts=len(calls), found=found)
    return streams


def write_streams(
    sources: Sequence[Source], streams: Sequence[EncodedStream], workers: int, writer: ArtifactWriter
) -> list[Written]:
    """Finishes every stream's shards, and writes the tables of documents."""
    calls: list[Callable[[], Any]] = []
    for source, stream in zip(sources, streams, strict=True):
        calls.append(partial(_documents, source, stream, writer))
        calls += [partial(_shard, source, stream, number, writer) for number in _shards(stream)]
    written = []
    with ThreadPoolExecutor(workers) as pool:
        results = run_in_order(pool, calls)
        for stream in streams:
            documents = next(results)
            lines = [next(results) for _ in _shards(stream)]
            written.append(Written(documents, stream.text_bytes, stream.tokens, lines))
    return written


def run_in_order(pool: ThreadPoolExecutor, calls: Iterable[Callable[[], T]]) -> Iterator[T]:
    """Results in the order of the calls. After an error, or when the iterator is closed, no further call is started."""
    return _results([pool.submit(call) for call in calls])


def _results(futures: Sequence[Future[T]]) -> Iterator[T]:
    try:
        for future in futures:
            yield future.result()
    finally:
        for future in reversed(futures):  # reversed, since a call waits for the ones before it
            future.cancel()


def _starts(parts: int) -> list[Future[int]]:
    """Futures of the first token of each part of a stream, and of its end; the first one is 0."""
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
    """The part, and whether an earlier attempt had written it. Sets `end` as early as possible: the next part waits."""
    try:
        part: Part | EncodedPart = find_part(path, key, shards) or encode()
        first = start.result()
        if isinstance(part, Part) and part.start != first:  # written after other parts than those before it now
            part = encode()
        end.set_result(first + part.count)
    except BaseException as error:
        end.set_exception(error)
        raise
    return (part, True) if isinstance(part, Part) else (write_part(path, key, first, part, shards), False)


def _key(key: bytes, source: Source, groups: RowGroups) -> bytes:
    of = f"{source.files.corpus.digest} {groups.path} {groups.groups.start} {groups.groups.stop}"
    return hashlib.blake2b(key + of.encode(), digest_size=16).digest()


def _documents(source: Source, stream: EncodedStream, writer: ArtifactWriter) -> int:
    return write_documents(stream, lambda path: writer.file(source.prefix + path), source.name)


def _shards(stream: EncodedStream) -> range:
    return range(stream.shards.count(stream.tokens))


def _shard(source: Source, stream: EncodedStream, number: int, writer: ArtifactWriter) -> dict[str, Any]:
    line = stream.shards.finish(number, stream.tokens)
    path = f"{source.prefix}shards/{source.name}/{number:05}.arrow"
    writer.link_cached(path, stream.shards.path(number), line["sha256"])
    return {"source": source.name, **line}


class _BoundedEncoder:
    """Limits the number of threads that use an encoder at the same time."""

    def __init__(self, encoder: Encoder, max_threads: int):
        self.name, self._encoder, self._slots = encoder.name, encoder, BoundedSemaphore(max_threads)

    def encode(self, texts: Texts) -> Encoded:
        with self._slots:
            return self._encoder.encode(texts)
