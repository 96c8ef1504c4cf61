"""Collects candidates from their chunks for the tasks that compare them, without a file for each pair of the two."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep

from stages.corpus.chunks import Chunk, Rows, group_adjacent, row_offsets
from stages.corpus.config import DedupConfig
from stages.corpus.tables import read_chunk

GATHERED_BYTES = 8 << 20
MOST_GATHERED_BYTES = 64 << 20
MOST_FILES = 256
"""Bytes of chunks that a rank gathers from; with more than `MOST_FILES` groups more, up to the second number."""


def gather_groups(chunks: Sequence[Chunk], judged: Path) -> list[list[int]]:
    """For each rank of `GatherCandidates`, the numbers of its chunks."""
    sizes = [(judged / chunk.name).stat().st_size for chunk in chunks]
    limit = min(max(GATHERED_BYTES, sum(sizes) // MOST_FILES), MOST_GATHERED_BYTES)
    return group_adjacent(sizes, limit, [None] * len(sizes))


class GatherCandidates(PipelineStep):
    """Collects the data of the candidates (see `Candidates.save`) in a group of chunks.

    Writes `{rank:05}.gathered.arrow` to `folder`; its record batch t is for task t: place among all candidates, text,
    subject, keys of all bands.
    """

    type, name = "dedup", "gather candidates"

    def __init__(
        self, groups: Sequence[list[int]], chunks: Sequence[Chunk], judged: Path, folder: Path, config: DedupConfig
    ):
        super().__init__()
        self.groups, self.chunks, self.judged, self.folder = groups, chunks, judged, folder
        self.base, self.bands = row_offsets(chunks), config.bands

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Gathers from group `rank`; yields nothing."""
        rows, places = (np.load(self.folder / f"{name}.npy", mmap_mode="r") for name in ("rows", "places"))
        found = []
        for number in self.groups[rank]:
            first, last = np.searchsorted(rows, self.base[number : number + 2])
            found.append(self._of_chunk(number, rows[first:last] - self.base[number], places[first:last]))
        table = pa.concat_tables(found)
        place = table["place"].to_numpy()
        order = np.argsort(place, kind="stable")
        # Tasks are ranges of places.
        bounds = np.searchsorted(place[order], np.load(self.folder / "tasks.npy")).tolist()
        table = table.take(order).combine_chunks()
        with (
            pa.OSFile(str(_path(self.folder, rank)), "wb") as sink,
            pa.ipc.new_file(sink, table.schema) as file,
        ):
            empty = pa.RecordBatch.from_pylist([], table.schema)
            batch = table.to_batches()[0] if len(table) else empty
            for first, last in pairwise(bounds):
                file.write_batch(batch.slice(first, last - first))
        yield from ()

    def _of_chunk(self, number: int, rows: Rows, places: Rows) -> pa.Table:
        chunk = self.chunks[number]
        table = read_chunk(self.judged / chunk.name, ["text", "subject"]).take(rows)
        keys = np.fromfile(self.judged / f"{chunk.name}.bands", np.uint64).reshape(self.bands, chunk.documents)[:, rows]
        buffers = [None, pa.py_buffer(np.ascontiguousarray(keys.T))]
        packed = pa.Array.from_buffers(pa.binary(8 * self.bands), len(rows), buffers)
        columns = {"place": pa.array(places), "text": table["text"], "subject": table["subject"], "keys": packed}
        return pa.table(columns)


def read_gathered(folder: Path, file: int, task: int) -> pa.RecordBatch:
    """The record batch of one file for a task."""
    with pa.OSFile(str(_path(folder, file))) as source:
        return pa.ipc.open_file(source).get_batch(task)


def _path(folder: Path, number: int) -> Path:
    return folder / f"{number:05}.gathered.arrow"
