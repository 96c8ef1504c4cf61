"""Headwater's side of `benchmarks/corpus.py`, a job a process."""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from child import Work, serve
from corpus_data import read_records, read_texts
from corpus_peers import Reasons, outcomes

sys.path.insert(0, str(Path(__file__).parent.parent))

WARM_UP_DOCUMENTS = 200
"""Enough to load every kernel; the filters' caches of words hardly fill."""


def filters(path: str) -> Work:
    """The drop-in step with datatrove's thresholds, documents in memory: from `Document`s to those that stay.

    Result: `outcomes`, for each document [reason or "", digest of the text as kept].
    """
    from datatrove.data import Document

    from stages.corpus.filtering.step import FastFilters, datatrove_defaults

    documents = [Document(text=item["text"], id=item["id"]) for item in read_records(Path(path))]
    copies = [Document(text=item.text, id=item.id) for item in documents[:WARM_UP_DOCUMENTS]]
    list(FastFilters(datatrove_defaults(), exclusion_writer=Reasons()).run(iter(copies)))

    def work() -> dict[str, Any]:
        reasons = Reasons()
        began = time.perf_counter()
        kept = list(FastFilters(datatrove_defaults(), exclusion_writer=reasons).run(iter(documents)))
        seconds = time.perf_counter() - began
        texts = {document.id: document.text for document in kept}
        return {"seconds": seconds, "outcomes": outcomes(documents, texts, reasons.found)}

    return work


def near(path: str, threshold: float) -> Work:
    """Near duplicates with verification: from texts in memory to decisions.

    Result: `removals`, a list of [document, survivor, similarity].
    """
    from corpus_near import near_duplicates_of

    from stages.corpus.config import DedupConfig
    from stages.corpus.texts import Texts

    # Subjects are not protected here: the rivals do not know them either.
    config = DedupConfig(similarity_threshold=threshold, protect_subjects=False)
    texts = read_texts(Path(path))
    near_duplicates_of(Texts.of(texts[:WARM_UP_DOCUMENTS] + texts[:1]), config)

    def work() -> dict[str, Any]:
        began = time.perf_counter()
        copies = near_duplicates_of(Texts.of(texts), config)
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "removals": [[copy.document, copy.survivor, copy.similarity] for copy in copies]}

    return work


def profile(path: str, threshold: float) -> Work:
    """Nanoseconds a byte by part, of the filters and of near duplicates.

    Result: `parts`, name -> nanoseconds.
    """
    import numpy as np
    from corpus_near import near_duplicates_of
    from corpus_profile import FILTERS, NEAR, nanoseconds_a_byte, profiled

    from stages.corpus.config import DedupConfig
    from stages.corpus.filtering.filters import Filters
    from stages.corpus.filtering.step import BATCH_BYTES, datatrove_defaults
    from stages.corpus.texts import Texts

    config = DedupConfig(similarity_threshold=threshold, protect_subjects=False)
    texts = Texts.of(read_texts(Path(path)))
    ends = np.searchsorted(texts.offsets, np.arange(BATCH_BYTES, len(texts.data) + BATCH_BYTES, BATCH_BYTES))
    bounds = sorted({0, *np.minimum(ends, len(texts)).tolist()})
    batches = [
        Texts(texts.data[texts.offsets[a] : texts.offsets[b]], texts.offsets[a : b + 1] - texts.offsets[a])
        for a, b in itertools.pairwise(bounds)
    ]
    Filters(datatrove_defaults()).judge(batches[0])
    near_duplicates_of(batches[0], config)

    def work() -> dict[str, Any]:
        parts: dict[str, float] = {}
        judge = Filters(datatrove_defaults())
        with profiled(FILTERS) as clock:
            began = time.perf_counter()
            for batch in batches:
                judge.judge(batch)
            whole = time.perf_counter() - began
        parts |= nanoseconds_a_byte("filters", clock, whole, len(texts.data))
        with profiled(NEAR) as clock:
            began = time.perf_counter()
            near_duplicates_of(texts, config)
            whole = time.perf_counter() - began
        return {"parts": parts | nanoseconds_a_byte("near", clock, whole, len(texts.data))}

    return work


def stage(path: str, warm_up: str, evaluation: str, workers: int = 1) -> Work:
    """The corpus stage from JSON Lines to Parquet: its defaults, decontaminated against every set of a folder.

    In the time: listing and hashing the source, the pool of workers, every pass, the artifact's manifest.
    Result: `counts`, `digest`, `steps` (name -> seconds, from the stage's events).
    """
    import datatrove.executor.local
    import datatrove.pipeline.readers  # noqa: F401  (imports are not in the time)

    from stages.corpus import warm

    # Compiles what a small corpus does not need, such as the removal of boilerplate: workers would do it in the time.
    warm.main()
    _stage(Path(warm_up), Path(evaluation), 1)
    return lambda: _stage(Path(path), Path(evaluation), workers)


def program(path: str, evaluation: str, workers: int) -> Work:
    """The corpus stage as a program of its own: nothing is imported or warmed up before."""
    return lambda: _stage(Path(path), Path(evaluation), workers)


def _stage(path: Path, evaluation: Path, workers: int) -> dict[str, Any]:
    from stages.corpus import CorpusConfig, corpus, inputs_of
    from stages.store import Store

    sets = {file.stem: str(file) for file in sorted(evaluation.glob("*.jsonl"))}
    config = CorpusConfig.model_validate(
        {
            "sources": {"text": {"location": str(path)}},
            "decontamination": {"sets": sets},
            "workers": workers,
        }
    )
    with tempfile.TemporaryDirectory(prefix="headwater-store-") as folder:
        began = time.perf_counter()
        artifact = corpus.run(config, inputs_of(config), Store(folder))
        seconds = time.perf_counter() - began
        events, _ = artifact.events().read()
        return {
            "seconds": seconds,
            "counts": dict(artifact.manifest.counts),
            "digest": artifact.manifest.digest,
            "passes": _seconds_by_pass(events),
        }


def _seconds_by_pass(events: list[Any]) -> dict[str, float]:
    """Seconds between the first event of a pass and the first of the next one."""
    starts: dict[str, float] = {}
    last = 0.0
    for event in events:
        last = event["time"]
        if event.get("pass_name"):
            starts.setdefault(event["pass_name"], last)
    names = list(starts)
    ends = [*(starts[name] for name in names[1:]), last]
    return {name: round(end - starts[name], 3) for name, end in zip(names, ends, strict=True)}


if __name__ == "__main__":
    serve({job.__name__: job for job in (filters, near, profile, program, stage)})
