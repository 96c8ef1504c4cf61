"""The second pass: boilerplate, filters, decontamination, MinHash keys. A task judges one chunk of the first pass."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from numpy.typing import NDArray

from stages.corpus.chunks import Chunk, lists_of, row_offsets
from stages.corpus.config import CorpusConfig
from stages.corpus.decontaminate import Index
from stages.corpus.dedup.boilerplate import strip
from stages.corpus.filtering.filters import Filters, Judged
from stages.corpus.kernels.character_classes import text_lengths
from stages.corpus.kernels.minhash import NO_KEY, band_hashes
from stages.corpus.kernels.ngrams import ngram_hashes
from stages.corpus.kernels.word_hashes import word_hashes
from stages.corpus.ledger import verdict_columns
from stages.corpus.passes.merge import KEEP
from stages.corpus.policy import Removal
from stages.corpus.tables import JUDGED, READ, read_chunk, write_chunk
from stages.corpus.texts import Texts

KEPT_COLUMNS = [name for name in JUDGED.names if name in READ.names and name != "text"]


class JudgeChunks(PipelineStep):
    """Edits and judges those documents of a chunk that `merge.merge` kept; the first removal counts.

    Writes to `judged`: the chunk with a verdict for each document; `{chunk}.bands`, MinHash keys uint64[bands, n];
    `{chunk}.json`, counts of edits; `{chunk}.items.npy`, which evaluation items occur in its documents.
    """

    type, name = "filter", "judge"

    def __init__(self, chunks: Sequence[Chunk], read: Path, judged: Path, config: CorpusConfig):
        super().__init__()
        self.chunks, self.read, self.judged, self.config = chunks, read, judged, config
        self.base = row_offsets(chunks)

    def run(self, data: DocumentsPipeline = None, rank: int = 0, world_size: int = 1) -> Iterator[Document]:
        """Judges chunk `rank`; yields nothing."""
        chunk, config = self.chunks[rank], self.config
        keep = np.load(self.read / KEEP, mmap_mode="r")[self.base[rank] : self.base[rank + 1]]
        table = read_chunk(self.read / chunk.name, [*KEPT_COLUMNS, "text", "personal", "edges", "group_hash"])
        table = table.filter(pa.array(keep)).combine_chunks()
        stripped = strip(
            Texts.from_arrow(table["text"]),
            np.load(self.read / f"boilerplate-{chunk.source}.npy"),
            config.edits,
            table["group_hash"].to_numpy(),
            lists_of(table["edges"]),
        )
        judged = _filters(config).judge(stripped.texts)
        words, starts = word_hashes(judged.texts.data, judged.texts.offsets)
        index = _index(self.read / "questions.npz")
        matches = index.matches(words, starts)
        np.save(self.judged / f"{chunk.name}.items.npy", matches.seen)
        removals = matches.removals(config.decontamination) | judged.removals
        removed = np.zeros(len(table), bool)
        removed[list(removals)] = True
        _keys(words, starts, removed, config).tofile(self.judged / f"{chunk.name}.bands")
        edits = _edits(table, stripped.lines, judged)
        (self.judged / f"{chunk.name}.json").write_text(json.dumps(edits))
        steps = {"boilerplate": stripped.changed, "filters": judged.rewritten}
        write_chunk(_table(table, judged, removals, steps), self.judged / chunk.name)
        yield from ()


_cache: dict[str, Any] = {}
"""The filters and the index of this process, which are used for many chunks."""


def load_filters(config: CorpusConfig) -> None:
    """Loads what the pass needs: kernels, the language model, spaCy."""
    _filters(config).judge(Texts.of(["The cause isn't known (yet)."]))


def clear_cache() -> None:
    """Frees the filters and the index of this process."""
    _cache.clear()


def _filters(config: CorpusConfig) -> Filters:
    key = config.filters.model_dump_json()
    if _cache.get("filters_key") != key:
        _cache.update(filters_key=key, filters=Filters(config.filters))
    found: Filters = _cache["filters"]
    return found


def _index(path: Path) -> Index:
    if _cache.get("index_key") != path:
        _cache.update(index_key=path, index=Index.load(path))
    found: Index = _cache["index"]
    return found


def _keys(
    words: NDArray[np.uint64], starts: NDArray[np.int64], removed: NDArray[np.bool_], config: CorpusConfig
) -> NDArray[np.uint64]:
    """MinHash keys, uint64[bands, n]; `NO_KEY` for documents that are removed already."""
    dedup = config.dedup
    if not dedup.near:
        return np.empty((0, len(removed)), np.uint64)
    grams, gram_starts = ngram_hashes(words, starts, dedup.ngram_size)
    keys = band_hashes(grams, gram_starts, dedup.bands, dedup.band_rows, dedup.seed)
    keys[:, removed] = NO_KEY
    return keys


def _edits(table: pa.Table, lines: NDArray[np.int64], judged: Judged) -> dict[str, int]:
    """Counts of edits inside the documents, by kind."""
    edits: Counter[str] = Counter(judged.edits)
    for personal in table["personal"].to_pylist():
        if personal:
            edits.update(json.loads(personal))
    if lines.any():
        edits.update({"boilerplate_lines": int(lines.sum()), "boilerplate_documents": int((lines > 0).sum())})
    return dict(edits)


def _table(
    table: pa.Table, judged: Judged, removals: dict[int, Removal], steps: dict[str, NDArray[np.bool_]]
) -> pa.Table:
    """The chunk to write: columns of the first pass, edited text, verdict."""
    columns = {name: table[name] for name in KEPT_COLUMNS}
    columns |= {
        "text": judged.texts.to_arrow(),
        "language": pa.array(judged.languages, pa.string()),
        "score": pa.array(judged.scores, pa.float64()),
        "steps": _with_steps(table["steps"], steps),
        "characters": pa.array(text_lengths(judged.texts.data, judged.texts.offsets)[0]),
        **verdict_columns(removals, len(table)),
    }
    return pa.table([columns[name] for name in JUDGED.names], schema=JUDGED)


def _with_steps(column: pa.ChunkedArray, steps: dict[str, NDArray[np.bool_]]) -> pa.Array:
    """Lists of steps, with the names of those that changed a document appended."""
    lists = column.to_pylist()
    for name, changed in steps.items():
        for i in np.flatnonzero(changed).tolist():
            lists[i] = [*lists[i], name]
    return pa.array(lists, pa.list_(pa.string()))
