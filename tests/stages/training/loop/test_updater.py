"""One update: gradients do not depend on the micro-batch, and may be discarded without a trace."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from models.decoder import Decoder
from models.sizes import config_for_size
from stages.training.loop.data import Batch, TrainingData
from stages.training.loop.updater import Updater
from stages.training.metrics.phase_clock import PHASES, PhaseClock
from stages.training.optim.optimizers import build_optimizers
from stages.training.optim.schedule import LearningRateSchedule
from stages.training.parallelism.ranks import Ranks, parallelize
from tests.support import training_config

ALONE = Ranks(0, 1, 1, torch.device("cpu"))


class Trained:
    """A small model, its optimizer and its data."""

    def __init__(self, folder: Path, **settings: object):
        config = training_config(data__global_batch_size=4, **settings)
        self.data = TrainingData(folder, "d", config, 0, 1)
        reader = self.data.reader
        with torch.device("meta"):
            model = Decoder(config_for_size("1m", reader.vocabulary_size, 64), reader.eos_id)
        self.model = parallelize(model, ALONE, seed=1)
        self.schedule = LearningRateSchedule(config.schedule, 3e-3, config.steps)
        self.optimizers = build_optimizers(self.model, config.optimizer, self.schedule, torch.float32)
        self.clock = PhaseClock(ALONE.device)
        self.updater = Updater(self.model, self.optimizers, config.optimizer, ALONE, self.clock, self.data.max_rows)

    def compute(self, number: int, micro_batch: int = 4) -> tuple[float, float]:
        batch = self.data.batch(number)
        computed = self.updater.compute(batch, batch.valid, micro_batch)
        return float(computed.nats), float(computed.grad_norm)

    def tensors(self) -> dict[str, Tensor]:
        found = {f"weight.{name}": p.detach() for name, p in self.model.named_parameters()}
        found |= self.optimizers.state_tensors(self.model)
        states = [state for optimizer in self.optimizers.optimizers for state in optimizer.state.values()]
        steps = [state["step"] for state in states if "step" in state]
        found["updates"] = torch.stack(steps)
        return {name: tensor.clone() for name, tensor in found.items()}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_discarded_gradients_leave_no_trace(tokens_folder: Path, optimizer: str) -> None:
    disturbed, undisturbed = (Trained(tokens_folder, optimizer__name=optimizer) for _ in range(2))
    for trained in (disturbed, undisturbed):
        trained.compute(0)
        trained.updater.apply(0)
    before = disturbed.tensors()
    nats, norm = disturbed.compute(1)
    assert nats > 0 and norm > 0
    disturbed.updater.discard()
    after = disturbed.tensors()
    assert before.keys() == after.keys()
    assert [name for name in before if not torch.equal(before[name], after[name])] == []
    for trained in (disturbed, undisturbed):
        trained.compute(2)
        trained.updater.apply(2)
    one, other = disturbed.tensors(), undisturbed.tensors()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []
    assert not torch.equal(before["weight.model.embed_tokens.weight"], one["weight.model.embed_tokens.weight"])


def test_the_micro_batch_may_change_from_batch_to_batch(tokens_folder: Path) -> None:
    whole, parts = Trained(tokens_folder), Trained(tokens_folder)
    for number, micro_batch in enumerate((1, 3, 4)):
        expected, found = whole.compute(number), parts.compute(number, micro_batch)
        assert found == pytest.approx(expected, rel=1e-4)
        whole.updater.apply(number)
        parts.updater.apply(number)


def test_a_rank_without_sequences_takes_part_and_adds_nothing(tokens_folder: Path) -> None:
    trained = Trained(tokens_folder)
    nothing = Batch(*(tensor[:0] for tensor in (trained.data.batch(0).tokens, trained.data.batch(0).targets)))
    computed = trained.updater.compute(nothing, 100.0, 2)
    assert float(computed.nats) == float(computed.grad_norm) == 0.0
    assert all(p.grad is not None for p in trained.model.parameters())


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_the_norm_of_an_update_is_that_of_the_weights_change(tokens_folder: Path, optimizer: str) -> None:
    trained = Trained(tokens_folder, optimizer__name=optimizer, optimizer__weight_decay=0.5)
    for number in range(3):
        before = trained.tensors()
        trained.compute(number)
        applied = trained.updater.apply(number, measure=True)
        norms = applied.norms
        assert applied.lr == trained.schedule.lr(number)
        after = trained.tensors()
        names = [name for name in after if name.startswith("weight.")]
        change = sum((after[name].double() - before[name].double()).square().sum() for name in names)
        weights = sum(after[name].double().square().sum() for name in names)
        assert norms is not None
        assert float(norms.update) == pytest.approx(float(change) ** 0.5, rel=1e-4)
        assert float(norms.weights) == pytest.approx(float(weights) ** 0.5, rel=1e-5)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_measuring_changes_nothing(tokens_folder: Path, optimizer: str) -> None:
    measured, plain = (Trained(tokens_folder, optimizer__name=optimizer) for _ in range(2))
    for number in range(3):
        for trained in (measured, plain):
            trained.compute(number)
        measured.updater.apply(number, measure=number == 1)
        assert plain.updater.apply(number).norms is None
    one, other = measured.tensors(), plain.tensors()
    assert [name for name in one if not torch.equal(one[name], other[name])] == []


def test_a_cut_has_the_spans_of_one_update_only(tokens_folder: Path) -> None:
    trained = Trained(tokens_folder)
    with trained.clock.phase("data"):
        pass
    trained.compute(0, micro_batch=1)
    trained.updater.apply(0)
    with trained.clock.phase("data"):
        pass
    spans = trained.clock.cut()
    counts = {name: sum(span.phase == name for span in spans) for name in (*PHASES, "stall")}
    assert counts == {
        "data": 2,
        "forward": 4,
        "backward": 4,
        "optimizer": 2,
        "checkpoint": 0,
        "validation": 0,
        "stall": 1,
    }
    assert trained.clock.cut() == []
    seconds = PhaseClock.seconds(spans)
    assert all(seconds[name] > 0 for name in ("data", *("forward", "backward", "optimizer"), "stall"))
    assert seconds["checkpoint"] == seconds["validation"] == 0
