"""Whole runs in this process: resuming, stopping, damaged and half-written checkpoints, bad numbers."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch

from models.huggingface import load_decoder, load_weights
from stages.artifact import Artifact, ConfigError, Store, StoreError
from stages.training import TrainingConfig, training
from stages.training import loop as loop_module
from stages.training import stop as stop_module
from stages.training.checkpoint import damaged, whole_checkpoints
from stages.training.errors import StoppedError, TrainingError
from stages.training.step import Computed
from stages.training.stop import request_stop

SETTINGS: dict[str, Any] = {
    "size": "1m",
    "steps": 12,
    "batch": 4,
    "warmup": 2,
    "learning_rate": 3e-3,
    "workers": 0,
    "precision": "fp32",  # else each run times both formats, and a busy machine chooses another for the second
    "checkpoint_every": 4,
    "validate_every": 6,
    "validation_rows": 4,
}


def _run(store: Store, tokens: Artifact, **changes: Any) -> Artifact:
    return training.run(TrainingConfig(**(SETTINGS | changes)), {"tokens": tokens}, store)


def _folder(store: Store) -> Path:
    return next(path.parent for path in Path(store.root).glob("training/*/events.jsonl"))


def _events(store: Store, kind: str) -> list[dict[str, Any]]:
    lines = (_folder(store) / "events.jsonl").read_text().splitlines()
    return [event for event in map(json.loads, lines) if event["type"] == kind]


def _checkpoints(store: Store) -> list[str]:
    folder = next(store.folders("training"))
    return [name.rsplit("/", 1)[-1] for name in whole_checkpoints(store, f"{folder}/checkpoints")]


def _interrupt_at(monkeypatch: pytest.MonkeyPatch, number: int, action: Any) -> None:
    """Does something just before a step is computed, once."""
    real, done = loop_module.Loop._step, []

    def step(self: Any, at: int, batch: Any) -> None:
        if at == number and not done:
            done.append(True)
            action(self)
        real(self, at, batch)

    monkeypatch.setattr(loop_module.Loop, "_step", step)


def _die(loop: Any) -> None:
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def undisturbed(tokens_artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return _run(Store(tmp_path_factory.mktemp("undisturbed")), tokens_artifact)


def test_a_run_leaves_what_the_contract_says(undisturbed: Artifact, tokens_artifact: Artifact):
    assert [f.path for f in undisturbed.files()] == [
        "config.json",
        "loss.parquet",
        "validation.parquet",
        "weights.safetensors",
    ]
    history = pq.read_table(undisturbed.local("loss.parquet")).to_pydict()
    assert history["step"] == list(range(12))
    assert history["tokens"] == [4 * 64 * (n + 1) for n in range(12)]
    vocabulary = tokens_artifact.manifest.counts["vocabulary"]
    assert history["loss"][0] == pytest.approx(math.log(-(-vocabulary // 128) * 128), abs=0.15)
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert undisturbed.manifest.metrics["bits_per_byte"] > 0
    model = load_decoder(
        json.loads(undisturbed.read("config.json")), load_weights(undisturbed.local("weights.safetensors"))
    )
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in model.parameters())
    kinds = {event["type"] for event in undisturbed.events().read()[0]}
    assert {"workers", "startup", "step", "validation", "checkpoint", "progress"} <= kinds
    assert history["seconds"] == sorted(history["seconds"]) and history["seconds"][0] > 0
    assert history["update_norm"][0] > 0 and history["weight_norm"][0] > history["update_norm"][0]
    for name in ("forward_seconds", "backward_seconds", "optimizer_seconds", "data_seconds", "memory_bytes"):
        assert min(history[name]) > 0
    in_between = [at for at, value in enumerate(history["validation_seconds"]) if value]
    assert in_between == [6], "of the two validations one lies before another step"
    assert {4, 8} <= {at for at, value in enumerate(history["checkpoint_seconds"]) if value}
    assert _checkpoints(undisturbed.store) == ["step-00000008", "step-00000012"]


def test_validations_are_kept_by_source(undisturbed: Artifact):
    told = [event for event in undisturbed.events().read()[0] if event["type"] == "validation"]
    lines = pq.read_table(undisturbed.local("validation.parquet")).to_pylist()
    for event, number in zip(told, (6, 12), strict=True):
        assert event["step"] == number and event["tokens"] == 4 * 64 * number and event["seconds"] > 0
        assert event["by_source"].keys() == {"alpha", "beta"}
        found = {line["source"]: line["bits_per_byte"] for line in lines if line["step"] == number}
        assert found == event["by_source"] | {None: event["bits_per_byte"]}
        assert min(event["by_source"].values()) <= event["bits_per_byte"] <= max(event["by_source"].values())
    metrics = undisturbed.manifest.metrics
    assert metrics["bits_per_byte"] == told[-1]["bits_per_byte"]
    assert metrics["bits_per_byte/alpha"] == told[-1]["by_source"]["alpha"]


def test_a_told_step_says_how_much_of_each_source_there_was(undisturbed: Artifact):
    told = [event for event in undisturbed.events().read()[0] if event["type"] == "step"]
    assert told[-1]["step"] == 11
    for event in told:
        assert sum(event["tokens_by_source"].values()) == event["tokens"]
        assert event["tokens_by_source"].keys() == {"alpha", "beta"}


def test_a_resumed_run_has_the_same_bits(tokens_artifact, undisturbed, tmp_path, monkeypatch):
    store = Store(tmp_path)
    _interrupt_at(monkeypatch, 10, _die)
    with pytest.raises(KeyboardInterrupt):
        _run(store, tokens_artifact)
    resumed = _run(store, tokens_artifact)
    assert [event["step"] for event in _events(store, "restart")] == [8]
    assert resumed.read("weights.safetensors") == undisturbed.read("weights.safetensors")
    losses = [pq.read_table(a.local("loss.parquet"))["loss"].to_pylist() for a in (resumed, undisturbed)]
    assert losses[0] == losses[1]
    seconds = pq.read_table(resumed.local("loss.parquet"))["seconds"].to_pylist()
    assert seconds == sorted(seconds), "time goes on from the checkpoint's"
    kept = [pq.read_table(a.local("validation.parquet")).drop_columns("seconds") for a in (resumed, undisturbed)]
    assert kept[0] == kept[1]


def test_a_run_with_adamw_alone_learns_and_resumes_too(tokens_artifact, undisturbed, tmp_path, monkeypatch):
    whole = _run(Store(tmp_path / "whole"), tokens_artifact, optimizer="adamw")
    history = pq.read_table(whole.local("loss.parquet")).to_pydict()
    assert history["loss"][-1] < history["loss"][0] - 0.3
    assert whole.read("weights.safetensors") != undisturbed.read("weights.safetensors")
    store = Store(tmp_path)
    _interrupt_at(monkeypatch, 10, _die)
    with pytest.raises(KeyboardInterrupt):
        _run(store, tokens_artifact, optimizer="adamw")
    resumed = _run(store, tokens_artifact, optimizer="adamw")
    assert [event["step"] for event in _events(store, "restart")] == [8]
    assert resumed.read("weights.safetensors") == whole.read("weights.safetensors")


def test_another_micro_batch_agrees_within_rounding(tokens_artifact, undisturbed, tmp_path):
    other = _run(Store(tmp_path), tokens_artifact, micro_batch=1, precision="fp32", steps=3, checkpoint_every=3)
    whole = _run(Store(tmp_path / "b"), tokens_artifact, micro_batch=4, precision="fp32", steps=3, checkpoint_every=3)
    losses = [pq.read_table(a.local("loss.parquet"))["loss"].to_pylist() for a in (other, whole)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert other.fingerprint == whole.fingerprint


def test_a_stop_writes_a_checkpoint_and_the_run_goes_on(tokens_artifact, undisturbed, tmp_path, monkeypatch):
    store = Store(tmp_path)
    _interrupt_at(monkeypatch, 5, lambda loop: request_stop(loop.run))
    with pytest.raises(StoppedError, match="after step 6 of 12"):
        _run(store, tokens_artifact)
    assert _checkpoints(store)[-1] == "step-00000006"
    resumed = _run(store, tokens_artifact)
    assert _events(store, "restart")[0]["step"] == 6
    assert resumed.read("weights.safetensors") == undisturbed.read("weights.safetensors")


def test_sigterm_stops_too(tokens_artifact, tmp_path, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    _interrupt_at(monkeypatch, 2, lambda loop: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(StoppedError, match="after step 3 of 12"):
        _run(Store(tmp_path), tokens_artifact)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_refused_run_gives_the_signal_back(tokens_artifact, tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(ConfigError, match="70b does not fit"):
        _run(Store(tmp_path), tokens_artifact, size="70b")
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.fixture
def interrupted(tokens_artifact, tmp_path, monkeypatch) -> Store:
    """A run that was killed with checkpoints 4 and 8 committed."""
    store = Store(tmp_path / "interrupted")
    _interrupt_at(monkeypatch, 10, _die)
    with pytest.raises(KeyboardInterrupt):
        _run(store, tokens_artifact)
    return store


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_damaged_and_half_written_checkpoints(interrupted: Store, tokens_artifact, undisturbed):
    folder = _folder(interrupted) / "checkpoints"
    half = folder / "step-00000011"
    shutil.copytree(folder / "step-00000008", half)
    (half / "manifest.json").unlink()
    assert _checkpoints(interrupted) == ["step-00000004", "step-00000008"]
    _flip(folder / "step-00000008" / "__0_0.distcp")
    assert damaged(folder / "step-00000008") == ["__0_0.distcp"]
    resumed = _run(interrupted, tokens_artifact)
    assert _events(interrupted, "checkpoint_refused")[0]["files"] == ["step-00000008/__0_0.distcp"]
    assert _events(interrupted, "restart")[0]["step"] == 4
    assert resumed.read("weights.safetensors") == undisturbed.read("weights.safetensors")


def test_nothing_but_damaged_checkpoints_is_refused_by_name(interrupted: Store, tokens_artifact):
    for name in _checkpoints(interrupted):
        _flip(_folder(interrupted) / "checkpoints" / name / "state.json")
    with pytest.raises(StoreError, match=r"step-00000008/state\.json, step-00000004/state\.json"):
        _run(interrupted, tokens_artifact)


def test_skipped_batches_are_left_out_and_told(tokens_artifact, tmp_path):
    store = Store(tmp_path)
    done = _run(store, tokens_artifact, skip=[[1, 3], [11, 12]])
    assert pq.read_table(done.local("loss.parquet"))["step"].to_pylist() == [0, *range(3, 11)]
    assert done.manifest.counts["updates"] == 9
    assert [(e["first"], e["end"]) for e in _events(store, "skipped")] == [(1, 3), (11, 12)]


def test_a_loss_that_is_no_number_ends_the_run(tokens_artifact, tmp_path, monkeypatch):
    def spoil(loop: Any) -> None:
        with torch.no_grad():
            next(loop.model.parameters()).fill_(float("nan"))

    store = Store(tmp_path)
    _interrupt_at(monkeypatch, 7, spoil)
    with pytest.raises(TrainingError, match=r"loss of step 7 is nan.*skip: \[\[7, 8\]\]"):
        _run(store, tokens_artifact)
    assert _checkpoints(store)[-1] == "step-00000004"


@pytest.mark.parametrize("steps", [6, 12])
def test_a_gradient_that_is_no_number_never_reaches_a_checkpoint(steps, tokens_artifact, tmp_path, monkeypatch):
    """Even where its loss was one: the weights are spoiled by the update, and step 5 is the last, or one to save at."""

    def spoil(loop: Any) -> None:
        compute = loop.updater.compute

        def infinite(*arguments: Any) -> Computed:
            computed = compute(*arguments)
            next(loop.model.parameters()).grad[0, 0] = float("inf")
            return replace(computed, norm=torch.tensor(float("inf")))

        monkeypatch.setattr(loop.updater, "compute", infinite)

    store = Store(tmp_path)
    _interrupt_at(monkeypatch, 5, spoil)
    with pytest.raises(TrainingError, match=r"gradient's norm of step 5 is inf.*skip: \[\[5, 6\]\]"):
        _run(store, tokens_artifact, steps=steps, checkpoint_every=3)
    assert _checkpoints(store) == ["step-00000003"]


def test_a_run_on_an_object_store_is_killed_stopped_and_has_the_same_bits(
    tokens_artifact, undisturbed, bucket, tmp_path, monkeypatch
):
    """Checkpoints, stop, outcome and what is made, all on S3; the scratch folders of this machine are empty after."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(stop_module, "_POLL_SECONDS", 0.0)
    store = Store(f"{bucket}/store")
    _interrupt_at(monkeypatch, 6, _die)
    with pytest.raises(KeyboardInterrupt):
        _run(store, tokens_artifact)
    assert _checkpoints(store) == ["step-00000004"]

    def ask(loop: Any) -> None:
        request_stop(loop.run)
        while not loop.stop.set:
            time.sleep(0.01)

    _interrupt_at(monkeypatch, 9, ask)
    with pytest.raises(StoppedError, match=rf"after step 10 of 12.* in {store.url}/training/.*/checkpoints"):
        _run(store, tokens_artifact)
    assert _checkpoints(store) == ["step-00000008", "step-00000010"]
    resumed = _run(store, tokens_artifact)
    restarts = [event["step"] for event in resumed.events().read()[0] if event["type"] == "restart"]
    assert restarts == [4, 10]
    assert resumed.read("weights.safetensors") == undisturbed.read("weights.safetensors")
    assert not list(resumed.damaged())
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.is_file() and "artifacts" not in path.parts]


def test_an_object_store_s_damaged_checkpoint_is_passed_over(
    tokens_artifact, undisturbed, bucket, tmp_path, monkeypatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    store = Store(bucket)
    _interrupt_at(monkeypatch, 10, _die)
    with pytest.raises(KeyboardInterrupt):
        _run(store, tokens_artifact)
    folder = next(store.folders("training"))
    store.remove(f"{folder}/checkpoints/step-00000008/__0_0.distcp")
    resumed = _run(store, tokens_artifact)
    restarts = [event["step"] for event in resumed.events().read()[0] if event["type"] == "restart"]
    assert restarts == [4]
    assert resumed.read("weights.safetensors") == undisturbed.read("weights.safetensors")
