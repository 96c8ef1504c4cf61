"""Near copies over the chunks of a corpus: candidates are found here, and compared by workers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from stages.corpus.chunks import Chunk, Rows, bases, by_chunk, identities
from stages.corpus.config import CorpusConfig, DedupConfig
from stages.corpus.kernels.words import word_hashes
from stages.corpus.near.candidates import components
from stages.corpus.near.verify import WordLists, near_copies
from stages.corpus.policy import UNKNOWN
from stages.corpus.tables import read_chunk
from stages.corpus.texts import Texts

TASK_CHARACTERS = 4 << 20
MOST_TASKS = 256
"""Components are shared out by size: tasks of so many characters, and no more than so many tasks."""
BUFFER_BYTES = 1 << 20
MOST_HELD_BYTES = 256 << 20
"""Room for words of which at most a third is used. A task that needs more, because one component is so large, has them
in a file."""

REMOVALS = pa.schema(
    [
        ("row", pa.int64()),
        ("similarity", pa.float64()),
        ("survivor", pa.string()),
        ("where", pa.string()),
    ]
)
"""Near copies, by row: how similar they are to which document that stays, and where that one lies."""


@dataclass(frozen=True)
class Candidates:
    """Documents that could be copies of each other, component after component, the most preferred first."""

    rows: Rows
    components: Rows
    """Where components begin, int64[c + 1]."""
    tasks: Rows
    """Where tasks begin, in components, int64[t + 1]."""
    bands: int
    """MinHash keys a document."""


def find_candidates(config: CorpusConfig, chunks: Sequence[Chunk], folder: Path) -> Candidates:
    """Connects documents by their MinHash keys, and sorts and shares out what is connected.

    Preferred are documents with a known licence, then by order of sources, then the longer, then by doc_id.
    """
    base = bases(chunks)
    rows, starts = components(
        int(base[-1]), config.dedup.bands, lambda band: _keys_of(band, chunks, folder), config.memory_megabytes << 20
    )
    if not len(rows):
        return Candidates(rows, starts, np.zeros(1, np.int64), config.dedup.bands)
    component = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    ascending = np.argsort(rows, kind="stable")
    rows, component = rows[ascending], component[ascending]
    names = list(dict.fromkeys(chunk.source for chunk in chunks))
    unknown, sizes, ids, sources = [], [], [], []
    for number, mine in by_chunk(rows, base):
        table = read_chunk(folder / chunks[number].name, ["license", "characters", "doc_id"])
        table = table.take(rows[mine] - base[number])
        unknown.append(np.array([name == UNKNOWN for name in table["license"].to_pylist()]))
        sizes.append(table["characters"].to_numpy())
        ids.append(np.array(table["doc_id"].to_pylist(), "S32"))
        sources.append(np.full(len(table), names.index(chunks[number].source)))
    size = np.concatenate(sizes)
    order = np.lexsort((np.concatenate(ids), -size, np.concatenate(sources), np.concatenate(unknown), component))
    return Candidates(rows[order], starts, _shared_out(size[order], starts), config.dedup.bands)


def _keys_of(band: int, chunks: Sequence[Chunk], folder: Path) -> Iterator[NDArray[np.uint64]]:
    for chunk in chunks:
        yield np.fromfile(folder / f"{chunk.name}.bands", np.uint64, chunk.documents, offset=8 * band * chunk.documents)


def _shared_out(sizes: NDArray[np.int64], starts: Rows) -> Rows:
    """Where tasks begin, so that each has about the same number of characters."""
    ends = np.cumsum(sizes)[starts[1:] - 1]
    share = max(TASK_CHARACTERS, -(-int(ends[-1]) // MOST_TASKS))
    task = (ends - 1) // share
    return np.concatenate([[0], np.flatnonzero(np.diff(task)) + 1, [len(ends)]]).astype(np.int64)


class Gatherer:
    """Brings what is needed of candidates from the chunks into one file a task, in one pass over the chunks.

    A file `{task:05}.arrow` is a stream of record batches: place in the task, text, subject, keys of all bands.
    """

    def __init__(self, found: Candidates, chunks: Sequence[Chunk], judged: Path, folder: Path):
        columns = {"place": pa.int64(), "text": pa.string(), "subject": pa.string(), "keys": pa.binary(8 * found.bands)}
        self.schema = pa.schema(list(columns.items()))
        self._found, self._chunks, self._judged, self._folder = found, chunks, judged, folder

    def gather(self) -> None:
        """Writes the files."""
        found, base = self._found, bases(self._chunks)
        ascending = np.argsort(found.rows, kind="stable")
        rows = found.rows[ascending]
        begins = found.components[found.tasks]
        task_of = np.searchsorted(begins, ascending, "right") - 1
        count = len(found.tasks) - 1
        sinks = [pa.ipc.new_stream(str(self._folder / f"{task:05}.arrow"), self.schema) for task in range(count)]
        waiting: list[list[pa.Table]] = [[] for _ in sinks]
        held = np.zeros(count, np.int64)
        for number, mine in by_chunk(rows, base):
            table = self._rows_of(number, rows[mine] - base[number], ascending[mine] - begins[task_of[mine]])
            for task in np.unique(task_of[mine]).tolist():
                part = table.filter(pa.array(task_of[mine] == task))
                waiting[task].append(part)
                held[task] += part.nbytes
                if held[task] >= BUFFER_BYTES:
                    sinks[task].write_table(pa.concat_tables(waiting[task]))
                    waiting[task], held[task] = [], 0
        for sink, tables in zip(sinks, waiting, strict=True):
            if tables:
                sink.write_table(pa.concat_tables(tables))
            sink.close()

    def _rows_of(self, number: int, rows: Rows, places: Rows) -> pa.Table:
        chunk = self._chunks[number]
        table = read_chunk(self._judged / chunk.name, ["text", "subject"]).take(rows)
        keys = np.fromfile(self._judged / f"{chunk.name}.bands", np.uint64).reshape(-1, chunk.documents)[:, rows]
        buffers = [None, pa.py_buffer(np.ascontiguousarray(keys.T))]
        packed = pa.Array.from_buffers(self.schema.field("keys").type, len(rows), buffers)
        columns = [pa.array(places), table["text"], table["subject"], packed]
        return pa.table(columns, schema=self.schema)


class CompareCandidates(PipelineStep):
    """Compares the candidates of one task; leaves `{task:05}.npz`: rows to remove, their survivors, similarities."""

    type, name = "dedup", "near copies"

    def __init__(self, folder: Path, config: DedupConfig):
        super().__init__()
        self.folder, self.config = folder, config

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Compares; yields nothing."""
        with np.load(self.folder / f"{rank:05}.candidates.npz") as saved:
            rows = saved["rows"]
        copies = near_copies(*self._documents(rank, len(rows)), self.config)
        np.savez(
            self.folder / f"{rank:05}.copies.npz",
            rows=rows[[copy.document for copy in copies]],
            survivors=rows[[copy.survivor for copy in copies]],
            similarities=np.array([copy.similarity for copy in copies], np.float64),
        )
        yield from ()

    def _documents(self, rank: int, count: int) -> tuple[WordLists, WordLists, NDArray[np.uint64]]:
        """Words, words of the subjects and keys of a task's candidates. No more than a batch of texts is held."""
        path = self.folder / f"{rank:05}.arrow"
        # Of the longest possible list only as much is ever in memory as is written to.
        longest = path.stat().st_size // 2 + count
        words = _long_array(longest, path.with_suffix(".words"))
        begins, ends = np.zeros(count, np.int64), np.zeros(count, np.int64)
        keys = np.empty((self.config.bands, count), np.uint64)
        subjects = np.empty(count, object)
        held = 0
        with pa.OSFile(str(path)) as source:
            for batch in pa.ipc.open_stream(source):
                place = batch["place"].to_numpy()
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
    """Room for hashes: in memory, or in a (sparse) file if it may become too much of that."""
    if 8 * length <= MOST_HELD_BYTES:
        return np.empty(length, np.uint64)
    return np.asarray(np.memmap(path, np.uint64, "w+", shape=(length,)))


def write_tasks(found: Candidates, chunks: Sequence[Chunk], judged: Path, folder: Path) -> int:
    """Leaves in `folder` what `CompareCandidates` needs; returns the number of tasks."""
    Gatherer(found, chunks, judged, folder).gather()
    for task in range(len(found.tasks) - 1):
        first, last = found.tasks[task], found.tasks[task + 1]
        starts = found.components[first : last + 1]
        np.savez(
            folder / f"{task:05}.candidates.npz", rows=found.rows[starts[0] : starts[-1]], components=starts - starts[0]
        )
    return len(found.tasks) - 1


def removals(tasks: int, chunks: Sequence[Chunk], judged: Path, folder: Path) -> pa.Table:
    """What the tasks found, by ascending row: see `REMOVALS`."""
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
