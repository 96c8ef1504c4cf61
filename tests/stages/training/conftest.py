"""A small tokens artifact, built by the tokens stage from a corpus written here, and runs that many tests read."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.corpus import Listing
from stages.store import Artifact, ArtifactWriter, HasDigest, Store
from stages.tokens import TokensConfig, tokens
from stages.training.run import Run
from tests.stages.training.prepared import before_step, die, make, one_core, path, prepare


def _documents(source: str, count: int, seed: int) -> pa.Table:
    rng = random.Random(f"{source}/{seed}")
    words = ["".join(rng.choices("abcdefghij", k=rng.randint(2, 6))) for _ in range(150)]
    texts = [" ".join(rng.choices(words, k=rng.randint(5, 60))) + "." for _ in range(count)]
    ids = [hashlib.sha256(f"{source}{seed}{n}".encode()).hexdigest()[:32] for n in range(count)]
    return pa.table(
        {
            "doc_id": ids,
            "text": texts,
            "uri": [f"{source}.jsonl#{n}" for n in range(count)],
            "license": ["CC0-1.0"] * count,
        }
    )


def make_tokens(
    store: Store, documents: int = 150, sequence_length: int = 64, tokenizer: Listing | None = None
) -> Artifact:
    """Two sources of random words, a vocabulary of 400 or a base's, and their held-out documents, in tokens."""
    writer = ArtifactWriter(store, "corpus/random-words", "corpus", 1, "0" * 32, {}, {})
    for seed, (part, count) in enumerate((("documents", documents), ("heldout", 12))):
        for source in ("alpha", "beta"):
            pq.write_table(_documents(source, count, seed), writer.file(f"{part}/{source}/00000.parquet"))
    corpus = writer.commit()
    config = TokensConfig(vocab_size=400, sequence_length=sequence_length, workers=1)
    inputs: dict[str, HasDigest] = {"corpus": corpus}
    return tokens.run(config, inputs if tokenizer is None else inputs | {"tokenizer": tokenizer}, store)


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def tokens_artifact(shared_store: Store) -> Artifact:
    return make_tokens(shared_store)


@pytest.fixture
def tokens_folder(tokens_artifact: Artifact) -> Path:
    return tokens_artifact.local()


@pytest.fixture(scope="module", autouse=True)
def _one_core() -> Iterator[None]:
    with one_core():
        yield


@pytest.fixture(scope="session")
def undisturbed(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """The artifact of an uninterrupted run in this process; read only."""
    with one_core():
        return make(Store(tmp_path_factory.mktemp("undisturbed")), tokens_artifact)


@pytest.fixture(scope="session")
def _killed(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Store:
    store = Store(tmp_path_factory.mktemp("killed"))
    with one_core(), pytest.MonkeyPatch.context() as patch:
        before_step(patch, 10, die)
        with pytest.raises(KeyboardInterrupt):
            make(store, tokens_artifact)
    return store


@pytest.fixture
def interrupted(_killed: Store, tmp_path: Path) -> Store:
    """A copy, for this test alone, of a run that was killed before step 10, with checkpoints 4 and 8 committed."""
    shutil.copytree(_killed.root, tmp_path / "interrupted")
    return Store(tmp_path / "interrupted")


@pytest.fixture(scope="session")
def alone(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run of one process on all of the machine's cores, started as on a machine without Ray; read
    and copied only."""
    run = prepare(tmp_path_factory.mktemp("alone"), tokens_artifact)
    file = path(run, "run.json")
    file.write_text(json.dumps(run.as_dict()))
    command = [sys.executable, "-m", "stages.training", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    outcome = run.outcome()
    assert outcome is not None and outcome["status"] == "finished", done.stderr[-2000:]
    return run
