"""The last pass: splits off held-out documents and writes the artifact's files. A task writes chunks of one source."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from stages.corpus.chunks import Chunk, group_adjacent, row_offsets
from stages.corpus.config import CorpusConfig
from stages.corpus.dedup.near.tasks import REMOVALS
from stages.corpus.heldout import is_held_out
from stages.corpus.ledger import Ledger, has_rule, ledger_rows
from stages.corpus.summary import SourceAccount
from stages.corpus.tables import DOCUMENTS, PLACES, REMOVED, ROWS_PER_GROUP, SCORES, read_chunk, write_chunk
from stages.corpus.texts import text_hash
from stages.store import ArtifactWriter

FILE_BYTES = 8 << 20
MOST_FILES = 64
"""Target size of a file in bytes of text, and the most files of a corpus; larger corpora get larger files."""

PARTS = ("documents", "heldout")


class WriteDocuments(PipelineStep):
    """Writes the documents of one group of chunks, training and held out, as Parquet; deletes the chunks.

    Writes to `folder`: `{rank:05}.{documents,heldout}.parquet` if there are any, `{rank:05}.removed.arrow` with the
    ledger's rows, and `{rank:05}.json` with counts.
    """

    type, name = "writer", "documents"

    def __init__(
        self, groups: Sequence[list[int]], chunks: Sequence[Chunk], judged: Path, folder: Path, config: CorpusConfig
    ):
        super().__init__()
        self.groups, self.chunks, self.judged, self.folder, self.config = groups, chunks, judged, folder, config
        self.base = row_offsets(chunks)

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Writes group `rank`; yields nothing."""
        files: dict[str, pq.ParquetWriter] = {}
        counts = {"documents": 0, "heldout": 0, "bytes_kept": 0, "characters_kept": 0}
        removed = [REMOVED.empty_table()]
        for number in self.groups[rank]:
            chunk = self.chunks[number]
            table = read_chunk(self.judged / chunk.name)
            removed_mask, rows = self._removals(number, table)
            removed.append(rows)
            table = table.filter(pa.array(~removed_mask)).combine_chunks()
            held = self._heldout_mask(table)
            for part, mine in (("documents", ~held), ("heldout", held)):
                if not mine.any():
                    continue
                kept = table.filter(pa.array(mine)).combine_chunks()
                if part not in files:
                    path = self.folder / f"{rank:05}.{part}.parquet"
                    files[part] = pq.ParquetWriter(path, DOCUMENTS, compression="zstd")
                files[part].write_table(_documents(kept, chunk), row_group_size=ROWS_PER_GROUP)
                counts[part] += len(kept)
                if part == "documents":
                    counts["bytes_kept"] += _text_bytes(kept)
                    counts["characters_kept"] += int(kept["characters"].to_numpy().sum())
        for file in files.values():
            file.close()
        write_chunk(pa.concat_tables(removed), self.folder / f"{rank:05}.removed.arrow")
        (self.folder / f"{rank:05}.json").write_text(json.dumps(counts))
        for number in self.groups[rank]:
            name = self.chunks[number].name
            for path in (self.judged / name, self.judged / f"{name}.bands"):
                path.unlink()
        yield from ()

    def _removals(self, number: int, table: pa.Table) -> tuple[NDArray[np.bool_], pa.Table]:
        """Which documents of a chunk are removed, and their rows of the ledger."""
        chunk = self.chunks[number]
        removed_mask = has_rule(table)
        ruled = np.flatnonzero(removed_mask)
        place = table.select(PLACES)
        verdict = table.select(["rule", "value", "threshold", "detail"])
        rows = ledger_rows(chunk, place.take(ruled), verdict.take(ruled), pa.array([""] * len(ruled), pa.string()))
        copies = self._copies(number)
        mine = copies["row"].to_numpy() - self.base[number]
        removed_mask[mine] = True
        verdict = {
            "rule": pa.array(["near_duplicate"] * len(copies), pa.string()),
            "value": pa.array(copies["similarity"].to_numpy().round(4)),
            "threshold": pa.array(np.full(len(copies), self.config.dedup.similarity_threshold)),
            "detail": copies["where"],
        }
        return removed_mask, pa.concat_tables(
            [rows, ledger_rows(chunk, place.take(mine), pa.table(verdict), copies["survivor"])]
        )

    def _copies(self, number: int) -> pa.Table:
        """The near copies of a chunk."""
        copies = read_chunk(self.folder / "copies.arrow", REMOVALS.names)
        rows = copies["row"].to_numpy()
        first, last = np.searchsorted(rows, self.base[number : number + 2])
        return copies.slice(first, last - first)

    def _heldout_mask(self, table: pa.Table) -> NDArray[np.bool_]:
        fraction, seed = self.config.heldout_fraction, self.config.seed
        if not fraction:
            return np.zeros(len(table), bool)
        return np.array([is_held_out(group, fraction, seed) for group in table["group"].to_pylist()], bool)


def _text_bytes(table: pa.Table) -> int:
    column = table["text"].combine_chunks()
    offsets = np.frombuffer(column.buffers()[1], np.int32)[column.offset : column.offset + len(column) + 1]
    return int(offsets[-1] - offsets[0]) if len(column) else 0


def _documents(table: pa.Table, chunk: Chunk) -> pa.Table:
    """Rows of a chunk as `DOCUMENTS`."""
    columns = {
        name: table[name] for name in ("doc_id", "text", "license", "retrieved_at", "language", "group", "steps")
    }
    columns |= {
        "text_hash": _text_hashes(table),
        "source": pa.array([chunk.source] * len(table), pa.string()),
        "uri": chunk.uris(table),
        "scores": pa.StructArray.from_arrays([table["score"].combine_chunks()], fields=list(SCORES)),
    }
    return pa.table([columns[name] for name in DOCUMENTS.names], schema=DOCUMENTS)


def _text_hashes(table: pa.Table) -> pa.Array:
    """Hashes of the texts as kept; for unedited texts this is the doc_id."""
    hashes = table["doc_id"].to_pylist()
    offsets = table["steps"].combine_chunks().offsets.to_numpy() if len(table) else np.zeros(1)
    for i in np.flatnonzero(np.diff(offsets)).tolist():
        hashes[i] = text_hash(table["text"][i].as_py())
    return pa.array(hashes, pa.string())


def file_groups(chunks: Sequence[Chunk], folder: Path) -> list[list[int]]:
    """Chunks that are written into one file: adjacent chunks of one source, by size alone."""
    sizes = [(folder / chunk.name).stat().st_size for chunk in chunks]
    return group_adjacent(sizes, max(FILE_BYTES, sum(sizes) // MOST_FILES), [chunk.source for chunk in chunks])


def collect_documents(
    groups: list[list[int]],
    chunks: Sequence[Chunk],
    folder: Path,
    accounts: dict[str, SourceAccount],
    ledger: Ledger,
    writer: ArtifactWriter,
) -> None:
    """Moves the files that the tasks wrote into the artifact, and adds up their counts and removals."""
    numbers: dict[tuple[str, str], int] = {}
    for rank, group in enumerate(groups):
        source = chunks[group[0]].source
        account = accounts[source]
        for part in PARTS:
            path = folder / f"{rank:05}.{part}.parquet"
            if path.exists():
                number = numbers[part, source] = numbers.get((part, source), -1) + 1
                shutil.move(path, writer.file(f"{part}/{source}/{number:05}.parquet"))
        counts = json.loads((folder / f"{rank:05}.json").read_text())
        account.kept += counts["documents"]
        account.heldout += counts["heldout"]
        account.bytes_kept += counts["bytes_kept"]
        account.characters_kept += counts["characters_kept"]
        ledger.add(source, read_chunk(folder / f"{rank:05}.removed.arrow", REMOVED.names))
