"""A small tokens artifact, made by the tokens stage from a corpus written by hand."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.artifact import Artifact, ArtifactWriter, Store
from stages.tokens import TokensConfig, tokens


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


def make_tokens(store: Store, documents: int = 150, sequence_length: int = 64) -> Artifact:
    """Two sources of made-up words, a vocabulary of 400, and their held-out documents, in tokens."""
    writer = ArtifactWriter(store, "corpus/made-up", "corpus", 1, "0" * 32, {}, {})
    for seed, (part, count) in enumerate((("documents", documents), ("heldout", 12))):
        for source in ("alpha", "beta"):
            pq.write_table(_documents(source, count, seed), writer.file(f"{part}/{source}/00000.parquet"))
    corpus = writer.commit()
    config = TokensConfig(vocabulary=400, sequence_length=sequence_length, workers=1)
    return tokens.run(config, {"corpus": corpus}, store)


@pytest.fixture(scope="session")
def shared_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def tokens_artifact(shared_store: Store) -> Artifact:
    return make_tokens(shared_store)


@pytest.fixture
def tokens_folder(tokens_artifact: Artifact) -> Path:
    return tokens_artifact.local()
