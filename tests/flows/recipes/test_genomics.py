"""The DNA recipe up to its tokens: every base of every allowed contig is a token that leads back to the file."""

from __future__ import annotations

from pathlib import Path

from flows.recipe import load_recipe
from flows.steps import STEP, RunArtifacts, list_inputs
from stages.corpus import read_original
from stages.store import Store
from stages.tokens.reader import TokenReader


def test_from_genomes_to_tokens_and_back(tmp_path: Path) -> None:
    recipe, artifacts, store = (
        load_recipe("genomics", ["sample.megabytes=0.4", "corpus.workers=1"]),
        RunArtifacts(),
        Store(tmp_path),
    )
    for kind in ("sample", "corpus", "tokens"):
        if kind == "corpus":
            list_inputs(recipe, artifacts)
        step = STEP[kind]
        artifacts[kind] = step.stage.run(step.config(recipe, artifacts), step.inputs(recipe, artifacts), store)
    corpus, tokens = artifacts["corpus"].manifest.counts, artifacts["tokens"].manifest.counts
    assert corpus["heldout"] > 0 and tokens["vocabulary"] == 257
    assert tokens["tokens"] == tokens["bytes"] + tokens["documents"]  # a base a token, and the ends

    reader = TokenReader(artifacts["tokens"].local())
    assert reader.shards.sources == ("synthetic_isolates", "synthetic_metagenome")
    vocabulary = _vocabulary(artifacts["tokens"].local("tokenizer/tokenizer.json"))
    letters = {token: letter for letter, token in vocabulary.items()}
    for source, name in enumerate(reader.shards.sources):
        stream = reader.shard(source, 0).reshape(-1)
        for number in range(0, reader.document_count(source), 7):
            document = reader.document(source, number)
            text = "".join(letters[token] for token in stream[document.start :][: document.length].tolist())
            assert document.license == recipe.corpus.sources[name].license
            original = read_original(artifacts.sources[name], document.uri, recipe.corpus.sources[name])
            assert original["text"].upper() == text and set(text) <= set("ACGTN")


def _vocabulary(path: Path) -> dict[str, int]:
    from tokenizers import Tokenizer

    vocabulary: dict[str, int] = Tokenizer.from_file(str(path)).get_vocab()
    return vocabulary
