"""Training that goes on from a base: its weights, tokenizer and special tokens, on any number of ranks."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from models.pretrained import load_folder
from stages.base.tokenizer import tokenizer_of
from stages.store import Artifact, ConfigError, InputError, Store
from stages.training import training
from stages.training.export import ExportConfig, export
from stages.training.loop.loop import Loop
from stages.training.optim.schedule import ladder_peak_lr
from tests.stages.base.bases import BOS, END_OF_TEXT, END_OF_TURN, import_base, save_base, shape
from tests.stages.training.conftest import make_tokens
from tests.stages.training.prepared import SETTINGS, before_step, column, die, one_core, prepare, train_on, weights_of
from tests.support import training_config

OWN = {name: value for name, value in SETTINGS.items() if name != "model__size"} | {"steps": 6}


@dataclass(frozen=True)
class World:
    """Two bases, and tokens of the first one's tokenizer."""

    store: Store
    base: Artifact
    other: Artifact
    tokens: Artifact

    def train(self, store: Store, **changes: Any) -> Artifact:
        inputs = {"tokens": self.tokens, "base": self.base}
        return training.run(training_config(**(OWN | changes)), inputs, store)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Read only."""
    folder = tmp_path_factory.mktemp("bases")
    store = Store(folder / "store")
    base = import_base(save_base(folder / "one", "Qwen2ForCausalLM"), store)
    other = import_base(save_base(folder / "other", "LlamaForCausalLM"), store)
    with one_core():
        yield World(store, base, other, make_tokens(store, tokenizer=tokenizer_of(base)))


def test_it_begins_with_the_weights_of_its_base(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first: dict[str, torch.Tensor] = {}
    rates: list[float] = []

    def note(loop: Loop) -> None:
        first.update({name: p.detach().clone() for name, p in loop.state.model.named_parameters()})
        rates.append(loop.state.optimizers.schedule.peak)

    before_step(monkeypatch, 0, note)
    changes = {"optimizer__lr": None, "parallelism__precision": "fp32"}
    done = world.train(Store(tmp_path), **changes)
    theirs = dict(load_folder(world.base.local("weights")).named_parameters())
    assert first.keys() == theirs.keys()
    assert all(torch.equal(first[name], tensor) for name, tensor in theirs.items())
    assert rates == [0.6 * ladder_peak_lr(shape("Qwen2ForCausalLM"))]
    assert done.manifest.inputs["base"] == world.base.digest


def test_its_export_is_of_its_base_s_class_with_its_special_tokens(world: World, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    store = Store(tmp_path)
    run = world.train(store)
    done = export.run(ExportConfig(dtype="float32"), {"training": run, "tokens": world.tokens}, store)
    folder = done.local("weights")
    stock = AutoModelForCausalLM.from_pretrained(folder)
    assert type(stock).__name__ == "Qwen2ForCausalLM" and stock.config.max_position_embeddings == 128
    assert stock.config.eos_token_id == [END_OF_TEXT, END_OF_TURN] and stock.config.bos_token_id == BOS
    sampling = stock.generation_config
    assert (sampling.temperature, sampling.top_p, sampling.do_sample) == (0.6, 0.9, True)
    assert sampling.eos_token_id == [END_OF_TEXT, END_OF_TURN]
    assert "cache_implementation" not in json.loads(done.read("weights/generation_config.json"))
    prompt = [{"role": "user", "content": "dose"}]
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.apply_chat_template(prompt, tokenize=False) == "user: dose<|turn|>"
    before = dict(AutoModelForCausalLM.from_pretrained(world.base.local("weights")).named_parameters())
    moved = [name for name, tensor in stock.named_parameters() if not torch.equal(tensor, before[name])]
    assert set(moved) == set(before), "biases too"


def test_the_number_of_ranks_does_not_matter(world: World, tmp_path: Path) -> None:
    losses = {}
    for ranks in (1, 2, 3):
        run = prepare(tmp_path / str(ranks), world.tokens, world.base, model__size="nano")
        assert train_on(ranks, run)["status"] == "finished"
        losses[ranks] = column(run)
    for ranks in (2, 3):
        assert losses[ranks] == pytest.approx(losses[1], rel=1e-4)
    assert losses[1][0] != losses[1][1]


def test_a_killed_run_goes_on_from_its_checkpoint_and_not_from_the_base(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undisturbed = world.train(Store(tmp_path / "undisturbed"))
    store = Store(tmp_path / "killed")
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 5, die)
        with pytest.raises(KeyboardInterrupt):
            world.train(store)
    again = world.train(store)
    restarted = [event for event in again.events().read()[0] if event["type"] == "restart"]
    assert [event["step"] > 0 for event in restarted] == [True]
    assert weights_of(again) == weights_of(undisturbed)


def test_another_base_is_another_run(world: World, tmp_path: Path) -> None:
    one = prepare(tmp_path / "one", world.tokens, world.base, model__size="nano")
    train_on(1, one)
    other = prepare(tmp_path / "one", world.tokens, world.other, model__size="nano")
    outcome = train_on(1, other)
    assert outcome["status"] == "failed" and f"its base is {world.base.digest}" in outcome["error"], outcome


def test_tokens_of_another_tokenizer_are_refused(world: World, tmp_path: Path, tokens_artifact: Artifact) -> None:
    with pytest.raises(InputError, match=r"are not of the tokenizer of the base .*; build them with training\.model"):
        training.run(training_config(**OWN), {"tokens": tokens_artifact, "base": world.base}, Store(tmp_path))


def test_samples_longer_than_the_base_s_context_are_refused(world: World, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"samples have 256 tokens, and the base .* was made for 128"):
        world.train(Store(tmp_path), data__rows_per_sample=4)


def test_a_base_that_does_not_fit_is_refused_without_other_sizes(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.training.loop import setup

    monkeypatch.setattr(setup, "available_memory", lambda: 1 << 20)
    with pytest.raises(ConfigError, match="training: the base does not fit") as caught:
        world.train(Store(tmp_path))
    assert "model.size" not in str(caught.value)


def test_weights_that_were_damaged_since_stop_every_rank(world: World, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    base = import_base(save_base(tmp_path / "model", "Qwen2ForCausalLM"), store)
    path = base.local("weights/model.safetensors")
    path.write_bytes(path.read_bytes()[:-4])
    run = prepare(tmp_path / "run", world.tokens, base, model__size="nano")
    outcome = train_on(2, run)
    assert outcome["status"] == "failed" and "the base's weights cannot be read" in outcome["error"]
