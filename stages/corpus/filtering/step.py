"""The fast filters as a step of a datatrove pipeline, in place of its Gopher, C4 and FineWeb filters."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from datatrove.data import Document, DocumentsPipeline
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.writers.disk_base import DiskWriter
from datatrove.utils.typeshelper import StatHints
from numpy.typing import NDArray

from stages.corpus.filtering.config import C4Config, FilterConfig, GopherQualityConfig, GopherRepetitionConfig
from stages.corpus.filtering.filters import Filters, Identifier
from stages.corpus.texts import Texts

BATCH_BYTES = 1 << 20
"""Text that is filtered at a time: much more exceeds the processor's cache, much less makes Python's overhead count."""


def datatrove_defaults() -> FilterConfig:
    """The default thresholds of datatrove's GopherQualityFilter, GopherRepetitionFilter and C4QualityFilter."""
    return FilterConfig(
        languages=[],
        quality=GopherQualityConfig(minimum_words=50, minimum_alphabetic_words=0.8, minimum_stop_words=2),
        repetition=GopherRepetitionConfig(
            minimum_words=0,
            top_ngrams={2: 0.2, 3: 0.18, 4: 0.16},
            duplicate_ngrams={5: 0.15, 6: 0.14, 7: 0.13, 8: 0.12, 9: 0.11, 10: 0.10},
        ),
        c4=C4Config(terminal_punctuation=True, minimum_words_per_line=3, minimum_sentences=5, curly_bracket=True),
    )


class NoLanguage:
    """Identifies no language: for filters without allowed languages."""

    def scores(self, texts: Texts) -> NoScores:
        """Scores of a batch."""
        return NoScores(len(texts))


@dataclass(frozen=True)
class NoScores:
    """Scores for n texts: no language."""

    n: int

    def probability(self, name: str) -> NDArray[np.float64]:
        """0 for each."""
        return np.zeros(self.n, np.float64)

    def best(self) -> tuple[list[str], NDArray[np.float64]]:
        """No language, with probability 0."""
        return [""] * self.n, self.probability("")


class FastFilters(PipelineStep):
    """Applies the filters of a config to a pipeline's documents; records the statistics of datatrove's filters.

    Args:
        config: filters and thresholds.
        exclusion_writer: receives removed documents, with the rule in `metadata["filter_reason"]`.
        batch_bytes: text to filter at a time; documents are buffered up to this size.
        language: used instead of the language model, which is needed only if the config has languages.
    """

    type = "🔻 - FILTER"
    name = "⚡ Fast filters"

    def __init__(
        self,
        config: FilterConfig,
        exclusion_writer: DiskWriter | None = None,
        batch_bytes: int = BATCH_BYTES,
        language: Identifier | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        self.exclusion_writer = exclusion_writer
        self.batch_bytes = batch_bytes
        self._language = language or (None if config.languages else NoLanguage())
        self._filters: Filters | None = None

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> DocumentsPipeline:
        """Yields the kept documents, in order."""
        with self.exclusion_writer if self.exclusion_writer else contextlib.nullcontext() as writer:
            for documents in self._batches(data):
                self.stat_update("batches")
                with self.track_time("batch"):
                    if self._filters is None:
                        self._filters = Filters(self.config, self._language)
                    # A lone surrogate has no UTF-8: it is filtered, and kept, as the replacement character.
                    judged = self._filters.judge(Texts.of(_encode(document.text) for document in documents))
                for row, document in enumerate(documents):
                    self.stat_update(StatHints.total)
                    removal = judged.removals.get(row)
                    if removal is None:
                        if judged.rewritten[row]:
                            document.text = judged.texts[row]
                        self.stat_update(StatHints.forwarded)
                        self.update_doc_stats(document)
                        yield document
                        continue
                    self.stat_update(StatHints.dropped)
                    self.stat_update(f"dropped_{removal.rule}")
                    if writer is not None:
                        document.metadata["filter_reason"] = removal.rule
                        writer.write(document, rank)

    def _batches(self, data: DocumentsPipeline) -> Iterator[list[Document]]:
        batch: list[Document] = []
        size = 0
        for document in data:
            batch.append(document)
            size += len(document.text)
            if size >= self.batch_bytes:
                yield batch
                batch, size = [], 0
        if batch:
            yield batch

    def __getstate__(self) -> dict[str, Any]:
        """Without the cached words: executors pickle steps for their workers."""
        return {**self.__dict__, "_filters": None}


def _encode(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace").encode()
