"""The corpus stage: from raw documents to clean, deduplicated, split documents, and a ledger of everything removed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stages.corpus.config import (
    CorpusConfig,
    DecontaminationConfig,
    DedupConfig,
    EditConfig,
    FieldMapping,
    PolicyConfig,
    SourceConfig,
)
from stages.corpus.filtering.config import FilterConfig
from stages.corpus.reading.guess import printable
from stages.corpus.reading.listing import ListedFile, Listing, list_files
from stages.corpus.reading.originals import read_original
from stages.corpus.reading.sources import source_listing, sources_in
from stages.corpus.summary import summary_rows
from stages.store import ArtifactWriter, Stage

__all__ = [
    "CorpusConfig",
    "DecontaminationConfig",
    "DedupConfig",
    "EditConfig",
    "FieldMapping",
    "FilterConfig",
    "ListedFile",
    "Listing",
    "PolicyConfig",
    "SourceConfig",
    "corpus",
    "inputs_of",
    "list_files",
    "printable",
    "read_original",
    "source_listing",
    "sources_in",
    "summary_rows",
]


def _build(config: CorpusConfig, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
    """See `stages.corpus.build.build`. Its imports are slow; workers do theirs at the same time."""
    from stages.corpus.execution.executor import make_workers

    with make_workers(config) as workers:
        from stages.corpus.build import build

        build(config, inputs, writer, workers)


corpus: Stage[CorpusConfig] = Stage("corpus", 3, _build)
"""The corpus stage. Inputs: `source/<name>` and `evaluation/<set>`, both Listings; see `inputs_of`."""


def inputs_of(config: CorpusConfig) -> dict[str, Listing]:
    """The listings that the stage takes as inputs for a config, from its locations.

    Raises:
        InputError: a source or set is missing or empty.
    """
    listings = {f"source/{name}": source_listing(source) for name, source in config.sources.items()}
    sets = {f"evaluation/{name}": list_files(path) for name, path in config.decontamination.sets.items()}
    return {**listings, **sets}
