"""Training of adapters on a base: any number of ranks, resumption, and the exported model."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from models.decoder import Decoder
from models.initialize import ZERO, initial_value
from models.lora import Lora, add_adapters, is_adapter
from models.memory import Checkpointing
from models.pretrained import load_folder
from models.sizes import ModelConfig
from stages.base.tokenizer import tokenizer_of
from stages.store import Artifact, InputError, Store, canonical
from stages.training import training
from stages.training.checkpoint.finding import committed_checkpoints
from stages.training.export import ExportConfig, export, export_checkpoint
from stages.training.loop.loop import Loop
from stages.training.optim.schedule import ladder_peak_lr
from stages.training.parallelism.activation_checkpointing import checkpoint_layers
from stages.training.parallelism.ranks import (
    Ranks,
    fill_shard,
    init_distributed,
    parallelize,
    set_last_micro_batch,
    set_values,
    shard,
)
from stages.training.parallelism.sharded import whole
from tests.stages.base.bases import import_base, save_base, shape
from tests.stages.training.conftest import make_tokens
from tests.stages.training.prepared import (
    SETTINGS,
    before_step,
    column,
    die,
    one_core,
    prepare,
    prepare_from,
    restarts,
    train_on,
    weights_at,
    weights_of,
)
from tests.stages.training.ranks import on_ranks
from tests.support import training_config

LORA = {"rank": 3, "alpha": 12.0}
MODEL = {"model__base": "/a/base", "model__lora": LORA}
OWN = {name: value for name, value in SETTINGS.items() if name != "model__size"} | MODEL | {"steps": 6}


@dataclass(frozen=True)
class World:
    """A base, tokens of its tokenizer, and a finished run that trained adapters."""

    store: Store
    base: Artifact
    tokens: Artifact
    run: Artifact
    peak: float
    """Of its learning rate, which the recipe left open."""
    frozen: set[str]
    """Parameters that had no gradient, and were those of the base before the last step."""

    def inputs(self) -> dict[str, Any]:
        return {"training": self.run, "tokens": self.tokens, "base": self.base}


def run_training(store: Store, tokens: Artifact, base: Artifact, **changes: Any) -> Artifact:
    return training.run(training_config(**(OWN | changes)), {"tokens": tokens, "base": base}, store)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Read only."""
    folder = tmp_path_factory.mktemp("adapted")
    store = Store(folder / "store")
    base = import_base(save_base(folder / "one", "Qwen2ForCausalLM"), store)
    theirs = dict(load_folder(base.local("weights")).named_parameters())
    peaks: list[float] = []
    frozen: set[str] = set()

    def look(loop: Loop) -> None:
        peaks.append(loop.state.optimizers.schedule.peak)
        model = loop.state.model
        same = {n for n, p in model.named_parameters() if not is_adapter(n) and torch.equal(p, theirs[n])}
        frozen.update(n for n, p in model.named_parameters() if n in same and p.grad is None and not p.requires_grad)

    with one_core(), pytest.MonkeyPatch.context() as patch:
        tokens = make_tokens(store, tokenizer=tokenizer_of(base))
        before_step(patch, 5, look)
        run = run_training(store, tokens, base, optimizer__lr=None)
        yield World(store, base, tokens, run, peaks[0], frozen)


def test_only_adapters_are_trained_and_in_the_checkpoint(world: World) -> None:
    assert world.frozen == {name for name, _ in load_folder(world.base.local("weights")).named_parameters()}
    assert world.peak == pytest.approx(10 * (64 / 2048) ** 0.5 * 0.6 * ladder_peak_lr(shape("Qwen2ForCausalLM")))
    names = weights_of(world.run).keys()
    assert names and all(map(is_adapter, names))
    indices = [entry for entry in world.run.files("checkpoints/") if entry.path.endswith("index.json")]
    tensors = json.loads(world.run.read(indices[0].path))["tensors"]
    averages = {f"{average}.{name}" for average in ("exp_avg", "exp_avg_sq") for name in names}
    assert tensors.keys() == {f"weight.{name}" for name in names} | averages
    losses = [json.loads(line) for line in world.run.read("events.jsonl").splitlines()]
    steps = [event["loss"] for event in losses if event["type"] == "step"]
    assert steps[-1] < steps[0]


def test_the_exported_model_is_adapter_on_base(world: World) -> None:
    peft = pytest.importorskip("peft")
    from transformers import AutoModelForCausalLM

    done = export.run(ExportConfig(dtype="float32"), world.inputs(), world.store)
    merged = load_folder(done.local("weights"))
    base = AutoModelForCausalLM.from_pretrained(world.base.local("weights"))
    ids = torch.arange(1, 30)[None]
    before = base(ids).logits
    theirs = peft.PeftModel.from_pretrained(base, str(done.local("adapter")))
    found, wanted = merged(ids), theirs(ids).logits
    torch.testing.assert_close(found, wanted, atol=2e-3, rtol=1e-3)
    assert (found - before).abs().max() > 20 * (found - wanted).abs().max(), "the adapters do something"
    assert type(AutoModelForCausalLM.from_pretrained(done.local("weights"))).__name__ == "Qwen2ForCausalLM"
    adapters = load_file(done.local("adapter/adapter_model.safetensors"))
    assert "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" in adapters
    config = json.loads(done.read("adapter/adapter_config.json"))
    assert (config["r"], config["lora_alpha"]) == (3, 12.0)
    assert config["base_model_name_or_path"] == world.base.manifest.details["location"]


def test_a_checkpoint_of_it_is_exported_merged(world: World, tmp_path: Path) -> None:
    settings = training_config(**OWN)
    config = ExportConfig(dtype="float32", step=6)
    export_checkpoint(world.store, world.run.folder, settings, world.tokens, config, tmp_path / "model", world.base)
    done = export.run(ExportConfig(dtype="float32"), world.inputs(), world.store)
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == done.read("weights/model.safetensors")


def test_it_is_not_exported_without_its_base(world: World, tmp_path: Path) -> None:
    inputs = world.inputs()
    del inputs["base"]
    with pytest.raises(InputError, match=r"trained adapters of the base .*; give that model as input `base`"):
        export.run(ExportConfig(), inputs, world.store)


def test_a_killed_run_goes_on_as_if_nothing_had_happened(world: World, tmp_path: Path) -> None:
    store = Store(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        before_step(patch, 5, die)
        with pytest.raises(KeyboardInterrupt):
            run_training(store, world.tokens, world.base, optimizer__lr=None)
    folder = next(store.folders("training"))
    assert committed_checkpoints(store, f"{folder}/checkpoints")
    again = run_training(store, world.tokens, world.base, optimizer__lr=None)
    restarted = [event for event in again.events().read()[0] if event["type"] == "restart"]
    assert [event["step"] > 0 for event in restarted] == [True]
    assert weights_of(again) == weights_of(world.run)


def test_the_number_of_ranks_does_not_matter(world: World, tmp_path: Path) -> None:
    """Three rows of an adapter on two ranks: one has two of them, the other has one."""
    runs = {}
    for ranks in (1, 2):
        runs[ranks] = prepare(tmp_path / str(ranks), world.tokens, world.base, model__size="nano", **MODEL)
        assert train_on(ranks, runs[ranks])["status"] == "finished"
    for name in ("loss", "grad_norm"):
        assert column(runs[2], name) == pytest.approx(column(runs[1], name), rel=1e-3), name
    assert weights_at(runs[1]).keys() == weights_at(runs[2]).keys()
    for name, content in weights_at(runs[1]).items():
        one, two = (torch.frombuffer(bytearray(c), dtype=torch.float32) for c in (content, weights_at(runs[2])[name]))
        torch.testing.assert_close(two, one, atol=1e-4, rtol=1e-2, msg=name)
    own = {"model__size": "nano", **MODEL}
    again = prepare_from(runs[2], tmp_path / "again", world.tokens, 3, base=world.base, **own)
    assert train_on(1, again)["status"] == "finished" and restarts(again) == [(3, 1)]
    assert column(again) == pytest.approx(column(runs[2]), rel=1e-3)


Case = tuple[int, bool, Checkpointing, torch.dtype]
"""Copies, one unit that stays gathered or a unit a layer, checkpointing, number format."""
CASES: list[Case] = [
    (1, True, "none", torch.float32),
    (1, False, "none", torch.float32),
    (1, False, "selective", torch.float32),
    (2, False, "full", torch.float32),
    (1, False, "none", torch.bfloat16),
]


def _decoder(dtype: torch.dtype) -> Decoder:
    with torch.device("meta"):
        model = Decoder(ModelConfig(96, 32, 3, 4, 2, 8, 80), 0, dtype)
        add_adapters(model, Lora(3, 6.0))
    return model


def _gradients(model: Decoder, rank: int, world: int) -> dict[str, Tensor]:
    """Of four sequences, over all ranks; two micro-batches a rank."""
    for name, parameter in model.named_parameters():
        if name.endswith(ZERO):  # lets gradients through the blocks, and to the first factors
            fill_shard(parameter, initial_value(f"{name} as a matrix", parameter.shape, 1) * 5)
    tokens = torch.randint(1, 96, (4, 24), generator=torch.Generator().manual_seed(3))
    mine = tokens[rank * 4 // world : (rank + 1) * 4 // world].chunk(2)
    for number, part in enumerate(mine):
        set_last_micro_batch(model, number == len(mine) - 1)
        model(part, part.roll(-1, 1), 0.1, 1e-3)[0].backward()
    return {name: whole(p.grad) for name, p in model.named_parameters() if p.grad is not None}


def _gradients_of_cases(result: Path) -> None:
    ranks, found = init_distributed("cpu"), []
    for replicas, gathered, mode, dtype in CASES:
        model = _decoder(dtype)
        shard(model, ranks, replicas, gathered)
        set_values(model, ranks, 7)
        checkpoint_layers(model, mode)
        found.append(_gradients(model, ranks.rank, ranks.world))
    if ranks.rank == 0:
        torch.save(found, result)


def test_gradients_are_those_of_one_process_for_every_way_to_shard(tmp_path: Path) -> None:
    on_ranks(2, tmp_path / "ranks", _gradients_of_cases, tmp_path / "found.pt")
    model = parallelize(_decoder(torch.float32), Ranks(0, 1, 1, torch.device("cpu")), 7)
    wanted = _gradients(model, 0, 1)
    assert wanted and all(is_adapter(name) and gradient.norm() > 1e-3 for name, gradient in wanted.items())
    for case, found in zip(CASES, torch.load(tmp_path / "found.pt"), strict=True):
        assert found.keys() == wanted.keys(), case
        near = 1e-4 if case[-1] == torch.float32 else 0.1
        for name, gradient in found.items():
            assert (gradient - wanted[name]).norm() < near * wanted[name].norm(), (case, name)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model__lora": {}}, r"lora adapts a base, and there is no training\.model\.base; name the model"),
        ({"model__base": "/b", "model__lora": {"target_modules": ["lm_head"]}}, "target_modules.*\n.*'q_proj'"),
        ({"model__base": "/b", "model__lora": {"target_modules": []}}, "target_modules\n.*at least 1"),
        ({"model__base": "/b", "model__lora": {"rank": 0}}, "rank\n.*greater than or equal to 1"),
    ],
)
def test_wrong_settings_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        training_config(**values)


def test_adapters_are_part_of_the_name_and_the_order_of_their_layers_is_not() -> None:
    plain, one, other = (
        canonical(training_config(model__base="/b", **({"model__lora": lora} if lora is not None else {})))
        for lora in (None, {"target_modules": ["v_proj", "q_proj"]}, {"target_modules": ["q_proj", "v_proj"]})
    )
    assert plain == {} and one == other == {"model": {"lora": {"target_modules": ["q_proj", "v_proj"]}}}
    assert canonical(training_config(model__base="/b", model__lora={})) == {"model": {"lora": {}}}


def test_a_base_has_to_be_given(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give the model to go on from as input `base`"):
        training.run(training_config(**OWN), {"tokens": world.tokens}, Store(tmp_path))
