"""Whole runs in this process: their files, resuming, stopping, values that are not finite."""

from __future__ import annotations

import json
import math
import os
import signal
from dataclasses import replace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from models.huggingface import from_config
from models.pretrained import expected_shapes
from stages.store import Artifact, ConfigError, Store
from stages.training.checkpoint.weights import final_weights
from stages.training.errors import StoppedError, TrainingError
from stages.training.loop.updater import Computed
from stages.training.stop import request_stop
from tests.stages.training.prepared import before_step, checkpoints, die, events, make, weights_of


def _losses(artifact: Artifact) -> list[float]:
    return pq.read_table(artifact.local("loss.parquet"))["loss"].to_pylist()


def test_a_run_writes_what_the_contract_names(undisturbed: Artifact, tokens_artifact: Artifact):
    last = "checkpoints/step-00000012"
    assert [f.path for f in undisturbed.files()] == [
        f"{last}/index.json",
        f"{last}/weights-00000-00000.safetensors",
        "config.json",
        "generation_config.json",
        "loss.parquet",
        "validation.parquet",
    ]
    history = pq.read_table(undisturbed.local("loss.parquet")).to_pydict()
    assert history["step"] == list(range(12))
    assert history["tokens"] == [4 * 64 * (n + 1) for n in range(12)]
    vocabulary = tokens_artifact.manifest.counts["vocabulary"]
    assert history["loss"][0] == pytest.approx(math.log(-(-vocabulary // 128) * 128), abs=0.15)
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert undisturbed.manifest.metrics["bits_per_byte"] > 0
    weights = final_weights(undisturbed)
    shape, _ = from_config(json.loads(undisturbed.read("config.json")))
    assert weights.shapes == expected_shapes(shape)
    found = [weights.read(name) for name in weights.shapes]
    assert all(tensor.dtype == torch.float32 and tensor.isfinite().all() for tensor in found)
    kinds = {event["type"] for event in undisturbed.events().read()[0]}
    assert {"workers", "startup", "step", "validation", "checkpoint", "progress"} <= kinds
    assert history["seconds"] == sorted(history["seconds"]) and history["seconds"][0] > 0
    assert history["update_norm"][0] > 0 and history["weight_norm"][0] > history["update_norm"][0]
    for name in ("forward_seconds", "backward_seconds", "optimizer_seconds", "data_seconds", "memory_bytes"):
        assert min(history[name]) > 0
    in_between = [at for at, value in enumerate(history["validation_seconds"]) if value]
    assert in_between == [6], "one of the two validations is followed by another step"
    assert {4, 8} <= {at for at, value in enumerate(history["checkpoint_seconds"]) if value}
    assert checkpoints(undisturbed.store) == ["step-00000008", "step-00000012"]


def test_validations_are_kept_by_source(undisturbed: Artifact):
    emitted = [event for event in undisturbed.events().read()[0] if event["type"] == "validation"]
    lines = pq.read_table(undisturbed.local("validation.parquet")).to_pylist()
    for event, number in zip(emitted, (6, 12), strict=True):
        assert event["step"] == number and event["tokens"] == 4 * 64 * number and event["seconds"] > 0
        assert event["by_source"].keys() == {"alpha", "beta"}
        found = {line["source"]: line["bits_per_byte"] for line in lines if line["step"] == number}
        assert found == event["by_source"] | {None: event["bits_per_byte"]}
        assert min(event["by_source"].values()) <= event["bits_per_byte"] <= max(event["by_source"].values())
    metrics = undisturbed.manifest.metrics
    assert metrics["bits_per_byte"] == emitted[-1]["bits_per_byte"]
    assert metrics["bits_per_byte/alpha"] == emitted[-1]["by_source"]["alpha"]


def test_a_step_event_has_the_tokens_of_each_source(undisturbed: Artifact):
    emitted = [event for event in undisturbed.events().read()[0] if event["type"] == "step"]
    assert emitted[-1]["step"] == 11
    for event in emitted:
        assert sum(event["tokens_by_source"].values()) == event["tokens"]
        assert event["tokens_by_source"].keys() == {"alpha", "beta"}


def test_a_resumed_run_has_the_same_bits(interrupted: Store, tokens_artifact, undisturbed):
    resumed = make(interrupted, tokens_artifact)
    assert [event["step"] for event in events(interrupted, "restart")] == [8]
    assert weights_of(resumed) == weights_of(undisturbed)
    assert _losses(resumed) == _losses(undisturbed)
    seconds = pq.read_table(resumed.local("loss.parquet"))["seconds"].to_pylist()
    assert seconds == sorted(seconds), "seconds continue from the checkpoint's"
    kept = [pq.read_table(a.local("validation.parquet")).drop_columns("seconds") for a in (resumed, undisturbed)]
    assert kept[0] == kept[1]


def test_a_run_with_adamw_alone_learns_and_resumes_too(tokens_artifact, undisturbed, tmp_path, monkeypatch):
    short: dict[str, Any] = {"steps": 7, "validation__rows": 0}
    store = Store(tmp_path / "killed")
    with monkeypatch.context() as patch:
        before_step(patch, 5, die)
        with pytest.raises(KeyboardInterrupt):
            make(store, tokens_artifact, optimizer__name="adamw", **short)
    whole = make(Store(tmp_path / "whole"), tokens_artifact, optimizer__name="adamw", **short)
    losses = _losses(whole)
    assert losses[-1] < losses[0] - 0.3
    assert weights_of(whole) != weights_of(undisturbed)
    resumed = make(store, tokens_artifact, optimizer__name="adamw", **short)
    assert [event["step"] for event in events(store, "restart")] == [4]
    assert weights_of(resumed) == weights_of(whole)


def test_another_micro_batch_agrees_within_rounding(tokens_artifact, tmp_path):
    short: dict[str, Any] = {"steps": 3, "checkpoint__every_steps": 3, "validation__rows": 0}
    other = make(Store(tmp_path / "a"), tokens_artifact, parallelism__micro_batch_size=1, **short)
    whole = make(Store(tmp_path / "b"), tokens_artifact, parallelism__micro_batch_size=4, **short)
    assert _losses(other) == pytest.approx(_losses(whole), rel=1e-5)
    assert other.fingerprint == whole.fingerprint


def test_a_stopped_run_resumes_from_its_last_checkpoint(interrupted: Store, tokens_artifact, undisturbed, monkeypatch):
    before_step(monkeypatch, 9, lambda loop: request_stop(loop.run))
    with pytest.raises(StoppedError, match="after step 10 of 12"):
        make(interrupted, tokens_artifact)
    assert checkpoints(interrupted)[-1] == "step-00000010"
    resumed = make(interrupted, tokens_artifact)
    assert [event["step"] for event in events(interrupted, "restart")] == [8, 10]
    assert weights_of(resumed) == weights_of(undisturbed)


def test_sigterm_stops_too(tokens_artifact, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    before_step(monkeypatch, 1, lambda loop: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError, match="after step 2 of 12"):
        make(Store(tmp_path), tokens_artifact)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_refused_run_restores_the_signal_handler(tokens_artifact, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError, match="70b does not fit"):
        make(Store(tmp_path), tokens_artifact, model__size="70b")
    assert signal.getsignal(signal.SIGTERM) is before


def test_skipped_batches_are_left_out_and_emitted(tokens_artifact, tmp_path):
    store = Store(tmp_path)
    done = make(store, tokens_artifact, steps=6, recovery__skip_batches=[[1, 3], [5, 6]])
    assert pq.read_table(done.local("loss.parquet"))["step"].to_pylist() == [0, 3, 4]
    assert done.manifest.counts["updates"] == 3
    assert [(e["first"], e["end"]) for e in events(store, "skipped")] == [(1, 3), (5, 6)]


def test_an_unfinished_run_skips_what_it_has_not_trained_on(interrupted: Store, tokens_artifact):
    """Skipping is no part of the plan: the same run resumes from its checkpoint at 8, without batch 9."""
    done = make(interrupted, tokens_artifact, recovery__skip_batches=[[9, 10]])
    assert pq.read_table(done.local("loss.parquet"))["step"].to_pylist() == [*range(9), 10, 11]
    assert [(e["first"], e["end"]) for e in events(interrupted, "skipped")] == [(9, 10)]
    assert make(interrupted, tokens_artifact, recovery__skip_batches=[[9, 10]]).digest == done.digest


def test_batches_in_the_weights_cannot_be_skipped(interrupted: Store, tokens_artifact, undisturbed):
    with pytest.raises(ConfigError, match=r"\[6, 10\) cannot be skipped: batch 6 was applied before .*step 8"):
        make(interrupted, tokens_artifact, recovery__skip_batches=[[6, 10]])
    with pytest.raises(
        ConfigError, match=r"finished run training/\w+ was trained on batch 2 of \[2, 3\).*--force-new-run"
    ):
        make(undisturbed.store, tokens_artifact, recovery__skip_batches=[[2, 3]])


def test_a_loss_that_is_not_finite_ends_the_run(interrupted: Store, tokens_artifact, monkeypatch):
    def spoil(loop: Any) -> None:
        with torch.no_grad():
            next(loop.state.model.parameters()).fill_(float("nan"))

    before_step(monkeypatch, 9, spoil)
    with pytest.raises(TrainingError, match=r"loss of step 9 is nan.*skip_batches=\[\[9, 10\]\]"):
        make(interrupted, tokens_artifact)
    assert checkpoints(interrupted)[-1] == "step-00000008"


@pytest.mark.parametrize(("number", "every"), [(11, 4), (9, 5)], ids=["the last", "one to save at"])
def test_a_gradient_that_is_not_finite_never_reaches_a_checkpoint(
    number: int, every: int, interrupted: Store, tokens_artifact, monkeypatch
):
    """Even where the loss was finite: the update spoils the weights."""

    def spoil(loop: Any) -> None:
        compute = loop.state.updater.compute

        def infinite(*arguments: Any) -> Computed:
            computed = compute(*arguments)
            next(loop.state.model.parameters()).grad[0, 0] = float("inf")
            return replace(computed, grad_norm=torch.tensor(float("inf")))

        monkeypatch.setattr(loop.state.updater, "compute", infinite)

    before_step(monkeypatch, number, spoil)
    message = rf"gradient's norm of step {number} is inf.*skip_batches=\[\[{number}, {number + 1}\]\]"
    with pytest.raises(TrainingError, match=message):
        make(interrupted, tokens_artifact, checkpoint__every_steps=every)
    assert checkpoints(interrupted) == ["step-00000004", "step-00000008"]
