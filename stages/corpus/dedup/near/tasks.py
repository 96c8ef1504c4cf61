"""Near copies over the chunks of a corpus: candidates are found in this process, and compared by workers."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from stages.corpus.chunks import Chunk, Rows, by_chunk, identities, row_offsets
from stages.corpus.config import CorpusConfig, DedupConfig
from stages.corpus.dedup.near.candidates import components
from stages.corpus.dedup.near.gather import read_gathered
from stages.corpus.dedup.near.verify import WordLists, near_copies
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.policy import UNKNOWN
from stages.corpus.tables import read_chunk
from stages.corpus.texts import Texts

TASK_BYTES = 4 << 20
MOST_TASKS = 256
"""Bytes of text of a task, and most tasks; a larger corpus has larger tasks."""
MOST_THREADS = 4
"""Most threads that find components, while workers are idle."""
MOST_MEMORY_BYTES = 256 << 20
"""Largest array of word hashes in memory (at most a third is used); a task with a larger component uses a file."""

REMOVALS = pa.schema(
    [
        ("row", pa.int64()),
        ("similarity", pa.float64()),
        ("survivor", pa.string()),
        ("where", pa.string()),
    ]
)
"""Near copies by row: their similarity to the kept document, its doc_id, and where it is."""


@dataclass(frozen=True)
class Candidates:
    """Documents that may be copies of each other, by component, in each the most preferred first."""

    rows: Rows
    tasks: Rows
    """Offsets of the tasks, int64[t + 1]; a task has whole components."""
    bytes: Rows
    """Bytes of text of each task, int64[t]."""

    @property
    def count(self) -> int:
        """Tasks."""
        return len(self.bytes)

    def save(self, folder: Path) -> None:
        """Writes them for workers, which memory-map them; also in order of rows, each with its place here."""
        places = np.argsort(self.rows, kind="stable")
        arrays = {"candidates": self.rows, "places": places, "rows": self.rows[places]}
        for name, array in (arrays | {"tasks": self.tasks, "bytes": self.bytes}).items():
            np.save(folder / f"{name}.npy", array)


def find_candidates(config: CorpusConfig, chunks: Sequence[Chunk], folder: Path) -> Candidates:
    """Connects documents by their MinHash keys, sorts the components, and divides them into tasks.

    Documents with a known licence are preferred, then by order of sources, then longer ones, then by doc_id.
    """
    base = row_offsets(chunks)
    files = [str(folder / f"{chunk.name}.bands") for chunk in chunks]
    threads = min(config.workers, MOST_THREADS)
    rows, starts = components(int(base[-1]), config.dedup.bands, lambda band: _keys_of(band, files, base), threads)
    if not len(rows):
        return Candidates(rows, np.zeros(1, np.int64), np.empty(0, np.int64))
    component = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    ascending = np.argsort(rows, kind="stable")
    rows, component = rows[ascending], component[ascending]
    names = list(dict.fromkeys(chunk.source for chunk in chunks))
    unknown, sizes, lengths, ids, sources = [], [], [], [], []
    for number, mine in by_chunk(rows, base):
        table = read_chunk(folder / chunks[number].name, ["license", "characters", "doc_id", "text"])
        lengths.append(pc.binary_length(table["text"]).to_numpy()[rows[mine] - base[number]])
        table = table.select(["license", "characters", "doc_id"]).take(rows[mine] - base[number])
        unknown.append(np.array([name == UNKNOWN for name in table["license"].to_pylist()]))
        sizes.append(table["characters"].to_numpy())
        ids.append(np.array(table["doc_id"].to_pylist(), "S32"))
        sources.append(np.full(len(table), names.index(chunks[number].source)))
    size = np.concatenate(sizes)
    order = np.lexsort((np.concatenate(ids), -size, np.concatenate(sources), np.concatenate(unknown), component))
    length = np.concatenate(lengths)[order].astype(np.int64)
    begins = starts[_divide(length, starts)]
    return Candidates(rows[order], begins, np.add.reduceat(length, begins[:-1]))


def _keys_of(band: int, files: Sequence[str], base: Rows) -> NDArray[np.uint64]:
    """The keys of all documents in one band."""
    keys = np.empty(base[-1], np.uint64)
    for path, (first, last) in zip(files, pairwise(base.tolist()), strict=True):
        handle = os.open(path, os.O_RDONLY)
        try:
            read = os.preadv(handle, [keys[first:last].data], 8 * band * (last - first))
        finally:
            os.close(handle)
        if read != 8 * (last - first):
            raise OSError(f"{path} ends before the keys of band {band}")
    return keys


def _divide(sizes: NDArray[np.int64], starts: Rows) -> Rows:
    """First component of each task, so that tasks have about equal numbers of bytes."""
    ends = np.cumsum(sizes)[starts[1:] - 1]
    share = max(TASK_BYTES, -(-int(ends[-1]) // MOST_TASKS))
    task = (ends - 1) // share
    return np.concatenate([[0], np.flatnonzero(np.diff(task)) + 1, [len(ends)]]).astype(np.int64)


class CompareCandidates(PipelineStep):
    """Compares the candidates of one task, which are in `files` gathered files; writes `{task:05}.copies.npz`: rows to
    remove, their survivors, similarities."""

    type, name = "dedup", "near copies"

    def __init__(self, folder: Path, files: int, config: DedupConfig):
        super().__init__()
        self.folder, self.files, self.config = folder, files, config

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Compares; yields nothing."""
        begins = np.load(self.folder / "tasks.npy")
        rows = np.load(self.folder / "candidates.npy", mmap_mode="r")[begins[rank] : begins[rank + 1]]
        copies = near_copies(*self._documents(rank, int(begins[rank]), len(rows)), self.config)
        np.savez(
            self.folder / f"{rank:05}.copies.npz",
            rows=rows[[copy.document for copy in copies]],
            survivors=rows[[copy.survivor for copy in copies]],
            similarities=np.array([copy.similarity for copy in copies], np.float64),
        )
        yield from ()

    def _documents(self, rank: int, first: int, count: int) -> tuple[WordLists, WordLists, NDArray[np.uint64]]:
        """Words, words of the subjects, and keys of a task's candidates. Holds one batch of texts at a time."""
        # Allocated for the longest possible list; only what is written to takes memory.
        longest = int(np.load(self.folder / "bytes.npy")[rank]) // 2 + count
        words = _long_array(longest, self.folder / f"{rank:05}.words")
        begins, ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
        keys = np.empty((self.config.bands, count), np.uint64)
        subjects = np.empty(count, object)
        held = 0
        for file in range(self.files):
            batch = read_gathered(self.folder, file, rank)
            if not len(batch):
                continue
            place = batch["place"].to_numpy() - first
            texts = Texts.from_arrow(batch["text"])
            found, starts = word_hashes(texts.data, texts.offsets)
            words[held : held + len(found)] = found
            begins[place], ends[place] = starts[:-1] + held, starts[1:] + held
            held += len(found)
            subjects[place] = batch["subject"].to_pylist()
            packed = batch["keys"]
            flat = np.frombuffer(packed.buffers()[1], np.uint64).reshape(-1, self.config.bands)
            keys[:, place] = flat[packed.offset : packed.offset + len(packed)].T
        return WordLists(words[:held], begins, ends), WordLists.of(Texts.of(subjects.tolist())), keys


def _long_array(length: int, path: Path) -> NDArray[np.uint64]:
    """An array of hashes: in memory, or in a (sparse) file if it is large."""
    if 8 * length <= MOST_MEMORY_BYTES:
        return np.empty(length, np.uint64)
    return np.asarray(np.memmap(path, np.uint64, "w+", shape=(length,)))


def removals(tasks: int, chunks: Sequence[Chunk], judged: Path, folder: Path) -> pa.Table:
    """The removals of all tasks, by ascending row: see `REMOVALS`."""
    parts = []
    for task in range(tasks):
        with np.load(folder / f"{task:05}.copies.npz") as saved:
            parts.append((saved["rows"], saved["survivors"], saved["similarities"]))
    if not parts:
        return REMOVALS.empty_table()
    rows, survivors, similarities = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(rows)
    stay = np.unique(survivors)
    who = identities(stay, chunks, judged).take(np.searchsorted(stay, survivors[order]))
    columns = [pa.array(rows[order]), pa.array(similarities[order]), who["doc_id"], who["where"]]
    return pa.table(columns, schema=REMOVALS)
