"""Corpus artifacts for the tokens stage's tests, written as the corpus stage writes them."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from stages.store import Artifact, ArtifactWriter, HasDigest, Store
from stages.tokens import TokensConfig, tokens

TEXT = """the patient was given aspirin for a fever and the dose of 250 mg did not change in 12 weeks while
serum potassium rose; naïve T-cells, β-blockers and 5-HT₃ antagonists don't agree with everybody's liver —
検査 結果 は 陰性 です 🧪\n\n"""
WORDS = TEXT.split(" ")

Text = Mapping[str, Sequence[str]]


def text(number: int) -> str:
    """A document that its number determines: 5 to 84 words."""
    words, state = [], number * 2654435761 % 2**32 + 1
    for _ in range(5 + number * 37 % 80):
        state = state * 1664525 % 2**32 + 1013904223
        words.append(WORDS[(state >> 16) % len(WORDS)])
    return " ".join(words)


def table(source: str, texts: Sequence[str], first: int) -> pa.Table:
    """Documents in the corpus stage's columns that the tokens stage reads, and some that it does not."""
    return pa.table(
        {
            "doc_id": [hashlib.blake2b(t.encode(), digest_size=16).hexdigest() for t in texts],
            "text": pa.array(texts, pa.string()),
            "source": [source] * len(texts),
            "uri": [f"{source}.jsonl#record={first + i}" for i in range(len(texts))],
            "license": pa.array(["CC-BY-4.0"] * len(texts), pa.string()),
        }
    )


def write_corpus(folder: Path, documents: Text, heldout: Text, a_file: int = 150) -> Artifact:
    """Commits a corpus artifact with `a_file` documents in each Parquet file."""
    digest = hashlib.blake2b(repr((documents, heldout, a_file)).encode(), digest_size=16).hexdigest()
    writer = ArtifactWriter(Store(folder), f"corpus/{digest[:16]}", "corpus", 1, digest, {}, {})
    for part, sources in (("documents", documents), ("heldout", heldout)):
        for source, texts in sources.items():
            for number, first in enumerate(range(0, max(len(texts), 1), a_file)):
                path = writer.file(f"{part}/{source}/{number:05}.parquet")
                pq.write_table(table(source, texts[first : first + a_file], first), path, row_group_size=64)
    return writer.commit()


DOCUMENTS: Text = {
    "abstracts": [text(n) for n in range(400)],
    "labels": [text(n) for n in range(1000, 1090)] + ["", "plain <|endoftext|> inside", "<|endoftext|>"],
    "nothing": [],
    "tiny": ["One short note."],
}
HELDOUT: Text = {"abstracts": [text(n) for n in range(5000, 5010)]}
CONFIG = TokensConfig(vocab_size=400, sequence_length=64, shard_rows=32)

Make = Callable[..., Artifact]


@pytest.fixture(scope="session")
def documents() -> Text:
    """Training documents per source: long and short ones, an empty one, EOS spelled out, a source with none."""
    return DOCUMENTS


@pytest.fixture(scope="session")
def heldout() -> Text:
    return HELDOUT


@pytest.fixture(scope="session")
def config() -> TokensConfig:
    """Small rows and shards, so that there are several of each."""
    return CONFIG


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Runs the stage on documents, in a store of its own."""

    def run(
        documents: Text = DOCUMENTS, heldout: Text = HELDOUT, config: TokensConfig = CONFIG, **inputs: HasDigest
    ) -> Artifact:
        folder = tmp_path_factory.mktemp("store")
        return tokens.run(config, {"corpus": write_corpus(folder, documents, heldout), **inputs}, Store(folder))

    return run


@pytest.fixture(scope="session")
def artifact(make: Make) -> Artifact:
    """The tokens of `documents` and `heldout` under `config`."""
    return make()


def rebuild(store: Path, workers: int, a_file: int) -> str:
    """Digest of the tokens of `DOCUMENTS` and `HELDOUT`, built by so many workers from files of so many documents."""
    corpus = write_corpus(store, DOCUMENTS, HELDOUT, a_file)
    return tokens.run(CONFIG.model_copy(update={"workers": workers}), {"corpus": corpus}, Store(store)).digest


if __name__ == "__main__":  # the same in a process of its own
    print(rebuild(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
