"""The stages as jobs for the forge: each takes a store's URL and the folder of prepared inputs.

Inputs are prepared once, in a store of their own, so that the store under test has nothing but the stage's files.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

import stages.store.stage
from stages.corpus import CorpusConfig, corpus, inputs_of
from stages.corpus.execution.local_workers import RankQueue
from stages.sample.stage import SampleConfig, sample
from stages.store import Artifact, ArtifactWriter, HasDigest, Stage, Store, load
from stages.store.lease import Holder
from stages.tokens import TokensConfig, tokens
from stages.training import training
from stages.training.export import ExportConfig, export
from tests.support import training_config

Inputs = Mapping[str, HasDigest]
SAMPLE = SampleConfig(megabytes=0.1)
TOKENS = TokensConfig(vocab_size=400, sequence_length=64, shard_rows=32, workers=1)
EXPORT = ExportConfig(dtype="float32")
TRAINING = training_config(
    model__size="1m",
    steps=6,
    data__global_batch_size=2,
    schedule__warmup_steps=2,
    optimizer__lr=3e-3,
    parallelism__workers=0,
    parallelism__precision="fp32",
    checkpoint__every_steps=2,
    validation__every_steps=3,
    validation__rows=2,
)


def corpus_config(inputs: Path, workers: int) -> CorpusConfig:
    """Three sources with duplicates, a held-out part and a set to decontaminate against."""
    return CorpusConfig.model_validate(
        {
            "sources": {name: {"location": str(inputs / "sources" / name)} for name in ("books", "notes", "web")},
            "decontamination": {"sets": {"exam": str(inputs / "sources" / "exam.jsonl")}},
            "heldout_fraction": 0.1,
            "workers": workers,
        }
    )


def prepare(url: str, folder: Path) -> dict[str, Any]:
    """Writes the inputs of every job below `folder`, and their names to `inputs.json`."""
    for number, name in enumerate(("books", "notes", "web")):
        lines = [{"id": n, "text": words(300 * number + n), "license": "CC0-1.0"} for n in range(60)]
        lines += lines[:5]
        path = folder / "sources" / name / "0.jsonl"
        path.parent.mkdir(parents=True)
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    question = {"question": words(7), "options": ["yes", "no"]}
    (folder / "sources" / "exam.jsonl").write_text(json.dumps(question) + "\n")

    store = Store(url)
    writer = ArtifactWriter(store, f"corpus/{0:016x}", "corpus", 1, "0" * 64, {}, {})
    for part, count in (("documents", 600), ("heldout", 12)):
        for source in ("alpha", "beta"):
            texts = [words(n, 50) for n in range(len(part) * 10_000 + len(source), len(part) * 10_000 + count)]
            table = pa.table(
                {
                    "doc_id": [hashlib.sha256(f"{source}{text}".encode()).hexdigest()[:32] for text in texts],
                    "text": texts,
                    "uri": [f"{source}.jsonl#{n}" for n in range(len(texts))],
                    "license": ["CC0-1.0"] * len(texts),
                }
            )
            pq.write_table(table, writer.file(f"{part}/{source}/00000.parquet"))
    artifacts = {"corpus": writer.commit()}
    artifacts["tokens"] = tokens.run(TOKENS, {"corpus": artifacts["corpus"]}, store)
    artifacts["training"] = training.run(TRAINING, {"tokens": artifacts["tokens"]}, store)
    (folder / "inputs.json").write_text(json.dumps({name: artifact.folder for name, artifact in artifacts.items()}))
    return {}


def words(seed: int, count: int = 80) -> str:
    """A text that depends on its number alone."""
    rng = random.Random(seed)
    known = [
        "the",
        "of",
        "and",
        "patient",
        "was",
        "given",
        "dose",
        "in",
        "liver",
        "a",
        "fever",
        "to",
        "with",
        "is",
        "not",
    ]
    return " ".join(rng.choice(known) + rng.choice(["", "", "s", "ed", "ing"]) for _ in range(count)) + f" {seed}."


def artifact(inputs: Path, name: str) -> Artifact:
    """One of the prepared artifacts."""
    found = load(Store(inputs / "store"), json.loads((inputs / "inputs.json").read_text())[name])
    assert found is not None
    return found


def arguments(job: str, inputs: Path, workers: int = 1) -> tuple[Stage[Any], Any, Inputs]:
    """Stage, config and inputs of a job."""
    if job == "sample":
        return sample, SAMPLE, {}
    if job == "corpus":
        config = corpus_config(inputs, workers)
        return corpus, config, inputs_of(config)
    if job == "tokens":
        return tokens, TOKENS, {"corpus": artifact(inputs, "corpus")}
    if job == "training":
        return training, TRAINING, {"tokens": artifact(inputs, "tokens")}
    if job == "model":
        return export, EXPORT, {"tokens": artifact(inputs, "tokens"), "training": artifact(inputs, "training")}
    raise ValueError(job)


def _job(name: str) -> Callable[..., dict[str, Any]]:
    def run(
        url: str, inputs: Path, workers: int = 1, waiting: bool = False, workers_first: bool = False
    ) -> dict[str, Any]:
        stage, config, given = arguments(name, inputs, workers)
        stages.store.stage.POLL_SECONDS = 0.05
        if workers_first:
            _let_workers_start_first()
        waited: list[int] = []

        def wait(holder: Holder) -> None:
            waited.append(holder.pid)
            report_waiting(holder)

        result = stage.run(config, given, Store(url), on_wait=wait if waiting else None)
        return {"digest": result.digest, "folder": result.folder, "waited_for": sorted(set(waited))}

    return run


def report_waiting(holder: Holder) -> None:
    """Called when a run finds the lease held by another process: a moment to hold it at."""


def _let_workers_start_first() -> None:
    """This process takes ranks of a pass only after a worker has finished one: with inputs as small as these it would
    finish them all before the first worker has started."""
    pop, returned = RankQueue.pop, RankQueue._returned
    begun: set[RankQueue] = set()

    def pop_later(self: RankQueue) -> int | None:
        return pop(self) if self in begun else None

    def note(self: RankQueue, rank: int, future: Future[None]) -> None:
        begun.add(self)
        returned(self, rank, future)

    RankQueue.pop, RankQueue._returned = pop_later, note  # type: ignore[method-assign]


STAGES = ("sample", "corpus", "tokens", "training", "model")
JOBS = {name: _job(name) for name in STAGES} | {"prepare": prepare}


def preload() -> None:
    """Imports what the jobs import when they run, and loads the compiled kernels, which costs 2 s and more.

    Runs are forked from here, so no thread may be at work; Arrow's, which are idle by then, start anew in a child.
    """
    import awkward  # noqa: F401
    import gigatoken  # noqa: F401
    import s3fs  # noqa: F401

    import stages.training.loop.loop  # noqa: F401
    from stages.corpus import warm

    warm.main()
