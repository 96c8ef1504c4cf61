"""Bad input is refused before the first step, and the message names what to change."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stages.store import Artifact, ArtifactWriter, ConfigError, Store, StoreError
from stages.tokens.reader import TokenReader
from stages.training.loop.loop import train
from stages.training.preflight.checks import check_cards, check_ids, check_stream
from tests.stages.training.prepared import SETTINGS, events, make, path, prepare, run_folder


def _changed(tokens: Artifact, store: Store, file: str, change: Callable[[bytes], bytes]) -> Artifact:
    """A copy of a tokens artifact, whole and with the right checksums, in which one file is another."""
    writer = ArtifactWriter(store, "tokens/changed", "tokens", 1, "1" * 32, {}, {})
    for entry in tokens.files():
        content = tokens.read(entry.path)
        writer.put(entry.path, change(content) if entry.path == file else content)
    return writer.commit()


def test_an_id_beyond_the_vocabulary_is_found_before_the_first_step(tokens_artifact: Artifact, tmp_path: Path):
    name = "shards/beta/00000.arrow"
    reader = TokenReader(tokens_artifact.local())
    rows = reader.shard(1, 0)
    spoilt = np.array(rows)
    spoilt[:, 7] = reader.vocabulary_size  # in every row, so that the first batch that draws from beta has one
    store = Store(tmp_path)
    tokens = _changed(tokens_artifact, store, name, lambda content: content.replace(rows.tobytes(), spoilt.tobytes()))
    last = reader.vocabulary_size - 1
    with pytest.raises(
        StoreError, match=rf"{name}: token 7 of row \d+ is {last + 1}, and the vocabulary ends at {last}"
    ):
        make(store, tokens, steps=2, data__weights={"beta": 1.0})
    assert not events(store, "step")


def test_the_file_and_row_of_a_wrong_id_are_named_in_samples_of_several_rows(tokens_artifact: Artifact):
    reader = TokenReader(tokens_artifact.local())
    rows = reader.batch([(0, 0, 4), (1, 0, 2)], rows_per_sample=2)
    check_ids(rows, reader, lambda: pytest.fail("places are computed only for an error"))
    rows[1, reader.sequence_length + 5] = reader.vocabulary_size
    with pytest.raises(StoreError, match=r"shards/beta/00000\.arrow: token 5 of row 3 is"):
        check_ids(rows, reader, lambda: np.array([(0, 0, 4), (1, 0, 2)]))
    check_ids(rows[:0], reader, lambda: pytest.fail("a short rank's batch is empty"))


def test_held_out_rows_are_checked_too(tokens_artifact: Artifact, tmp_path: Path):
    name = "heldout/shards/alpha/00000.arrow"
    rows = TokenReader(tokens_artifact.local(), "heldout").shard(0, 0)
    spoilt = np.full_like(rows, 60_000)
    store = Store(tmp_path)
    tokens = _changed(tokens_artifact, store, name, lambda content: content.replace(rows.tobytes(), spoilt.tobytes()))
    with pytest.raises(StoreError, match=rf"{name}: token 0 of row 0 is 60000"):
        make(store, tokens, steps=2)


def test_tokens_of_another_tokenizer_are_refused(tokens_artifact: Artifact, tmp_path: Path):
    def smaller(content: bytes) -> bytes:
        document = json.loads(content)
        vocabulary = document["model"]["vocab"]
        del vocabulary[max(vocabulary, key=vocabulary.get)]
        return json.dumps(document).encode()

    store = Store(tmp_path)
    size = tokens_artifact.manifest.counts["vocabulary"]
    tokens = _changed(tokens_artifact, store, "tokenizer/tokenizer.json", smaller)
    with pytest.raises(StoreError, match=rf"stream\.json says {size} tokens, tokenizer/tokenizer\.json has {size - 1}"):
        make(store, tokens, steps=2)


def test_parts_of_a_stream_that_disagree_are_named(tokens_folder: Path, tmp_path: Path):
    folder = tmp_path / "tokens"
    shutil.copytree(tokens_folder, folder)
    check_stream(TokenReader(folder))
    stream = json.loads((folder / "stream.json").read_bytes())
    (folder / "stream.json").write_text(json.dumps(stream | {"vocabulary_size": 5, "eos_id": 5}))
    known = stream["vocabulary_size"]
    with pytest.raises(StoreError, match=rf"5 tokens, but eos_id is 5 and token_bytes\.npy has {known} tokens"):
        check_stream(TokenReader(folder))


def test_more_workers_than_sequences_are_refused_before_they_start(tokens_artifact: Artifact, tmp_path: Path):
    with pytest.raises(
        ConfigError, match=r"7 workers share a batch of 4.*3 of them.*training.parallelism.workers to 4 at most"
    ):
        make(Store(tmp_path), tokens_artifact, parallelism__workers=7)


@pytest.mark.skipif(
    torch.cuda.is_available(), reason="this machine has a GPU: the refusal of cuda without one was not run"
)
def test_a_gpu_where_there_is_none_is_refused(tokens_artifact: Artifact, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"device is cuda.* has none \(PyTorch .*\); set training.*device to auto"):
        make(Store(tmp_path), tokens_artifact, parallelism__device="cuda")


def test_fewer_gpus_than_workers_are_refused():
    check_cards(2, 2)
    with pytest.raises(ConfigError, match=r"asks for 4 GPUs.* has 1; set training.*workers to 1 at most, or"):
        check_cards(4, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optimizer__lr": 1e-3}, r"its optimizer\.lr is 0\.003, this run's 0\.001; put back the recipe"),
        ({"seed": 5}, r"its seed is the default, this run's 5"),
    ],
)
def test_a_checkpoint_of_another_recipe_is_refused(
    changes, message, interrupted: Store, tokens_artifact: Artifact, tmp_path: Path
):
    ours = prepare(tmp_path / "ours", tokens_artifact, **(SETTINGS | changes))
    shutil.copytree(run_folder(interrupted) / "checkpoints", path(ours, "checkpoints"))
    train(ours)
    outcome = ours.outcome()
    assert outcome is not None and outcome["status"] == "failed" and outcome["kind"] == "StoreError"
    with pytest.raises(StoreError, match=message):
        raise StoreError(outcome["error"])
    assert f"{path(ours, 'checkpoints')} can be loaded: step-00000008/state.json, step-00000004" in outcome["error"]
