"""The registry against a real MLflow: a model is registered once, metrics carry their data's digest, aliases move."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient

from flows.forward import Forwarder, forward_rest
from flows.registry import MlflowSink, log_evaluation, open_run, promote, register
from stages.store import Artifact, ArtifactWriter, Config, Stage, Store
from tests.support import free_port


class Toy(Config):
    name: str = "first"
    """Which model."""


def _stage(kind: str) -> Stage[Toy]:
    def build(config: Toy, inputs: Mapping[str, Any], writer: ArtifactWriter) -> None:
        writer.put("file", f"{kind} {config.name}".encode())
        writer.put("verdict.json", b"{}")
        writer.counts["documents"] = 5
        if kind == "evaluation":
            writer.metrics.update({"bits_per_byte": 1.25, "exam/accuracy_cloze": 0.5})
        for step in range(20):
            fields = {"forward_seconds": 0.25, "tokens_by_source": {"notes": step, "own+(1)": 2 * step}}
            writer.events.emit("step", step=step, loss=1 / (step + 1), tokens_per_second=10.0, **fields)
        writer.events.emit("validation", step=20, bits_per_byte=2.0, by_source={"notes": 1.5, "own+(1)": 2.5})

    return Stage(kind, 1, build)


MLFLOW = """
import os, runpy, sys
import mlflow.cli, mlflow.server

def run_here(command, extra_env, **how):
    assert command[:2] == [sys.executable, "-m"]
    os.environ.update(extra_env)
    sys.argv = command[2:]
    runpy.run_module(command[2], run_name="__main__")

mlflow.server._exec_cmd = run_here
mlflow.cli.cli()
"""
"""MLflow's command line, which starts its server: here in its own process, not in another one that would import
everything a second time."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server on SQLite."""
    folder, port = tmp_path_factory.mktemp("mlflow"), free_port()
    command = [sys.executable, "-c", MLFLOW, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/m.db", "--artifacts-destination", str(folder / "files")]
    env = os.environ | {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while True:
            try:
                with urllib.request.urlopen(f"{url}/health", timeout=2):
                    break
            except (urllib.error.URLError, OSError):
                assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.2)
        yield url
    finally:
        process.terminate()
        process.wait(30)


def _build_all(store: Store, name: str) -> dict[str, Artifact]:
    artifacts: dict[str, Artifact] = {}
    for kind in ("corpus", "tokens", "training", "model", "verdict"):
        artifacts[kind] = _stage(kind).run(Toy(name=name), {}, store)
    inputs = {"model": artifacts["model"], "tokens": artifacts["tokens"], "set/exam": artifacts["corpus"]}
    artifacts["evaluation"] = _stage("evaluation").run(Toy(name=name), inputs, store)
    return artifacts


def test_curves_arrive_once_even_if_the_forwarder_restarts(server: str, tmp_path: Path) -> None:
    store = Store(tmp_path)
    stage = _stage("training")
    plan = stage.plan(Toy(), {}, store)
    for _ in range(2):
        with Forwarder(store, plan.folder, [MlflowSink(server, "curves", store, plan.folder, {"tag": "x"})]):
            stage.run(Toy(), {}, store, plan)
    client = MlflowClient(server)
    experiment = client.get_experiment_by_name("curves")
    assert experiment is not None
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")] == list(range(20))
    newest = {
        "loss": 1 / 20,
        "tokens_per_second": 10.0,
        "forward_seconds": 0.25,
        "tokens/notes": 19,
        "tokens/own__1_": 38,
        "heldout_bits_per_byte": 2.0,
        "bits_per_byte/notes": 1.5,
        "bits_per_byte/own__1_": 2.5,
    }
    assert client.get_run(run.info.run_id).data.metrics == newest


def test_curves_arrive_once_after_mlflow_was_unreachable(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    store = Store(tmp_path)
    stage = _stage("training")
    plan = stage.plan(Toy(), {}, store)
    unreachable = f"http://127.0.0.1:{free_port()}"
    sink = MlflowSink(unreachable, "away", store, plan.folder, {})
    with Forwarder(store, plan.folder, [sink]) as forwarder:
        stage.run(Toy(), {}, store, plan)
    assert forwarder.lagging == [sink]
    assert "Mlflow does not answer; the run continues" in caplog.text
    assert not forward_rest(store, plan.folder, MlflowSink(unreachable, "away", store, plan.folder, {}))
    client = MlflowClient(server)

    def steps() -> list[int]:
        (run,) = client.search_runs([client.get_experiment_by_name("away").experiment_id])  # type: ignore[union-attr]
        assert run.info.status == "FINISHED"
        return [metric.step for metric in client.get_metric_history(run.info.run_id, "loss")]

    for _ in range(2):
        assert forward_rest(store, plan.folder, MlflowSink(server, "away", store, plan.folder, {}))
        assert steps() == list(range(20))
    # Killed between MLflow's answer and the offset: everything is sent a second time, MLflow stores one of each.
    (name,) = store.list("forwarded")
    store.put(name, json.dumps(store.read_json(name) | {"offset": 0}).encode())
    assert forward_rest(store, plan.folder, MlflowSink(server, "away", store, plan.folder, {}))
    assert steps() == list(range(20))


def test_two_that_follow_one_training_share_its_mlflow_run(server: str, tmp_path: Path) -> None:
    store, client = Store(tmp_path), MlflowClient(server)
    barrier, found = threading.Barrier(2), []

    def follow() -> None:
        barrier.wait()
        found.append(open_run(client, "shared", store, "training/x", {}))

    threads = [threading.Thread(target=follow) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1]
    experiment = client.get_experiment_by_name("shared")
    assert experiment is not None and len(client.search_runs([experiment.experiment_id])) == 1


def test_a_model_is_registered_once_and_aliases_follow_the_gate(server: str, tmp_path: Path) -> None:
    store, client = Store(tmp_path), MlflowClient(server)
    artifacts = _build_all(store, "first")
    first = register(server, "toy+docs", store, artifacts)
    assert register(server, "toy+docs", store, artifacts) == first
    log_evaluation(server, first, artifacts["evaluation"], [{"set": "exam", "value": 0.5}])
    log_evaluation(server, first, artifacts["evaluation"], [{"set": "exam", "value": 0.5}])
    metrics = client.get_logged_model(first.model_id).metrics
    assert metrics is not None
    measured = {metric.key: metric for metric in metrics}
    assert measured["evaluation/exam/accuracy_cloze"].dataset_digest == artifacts["corpus"].digest[:36]
    assert measured["evaluation/bits_per_byte"].dataset_digest == artifacts["tokens"].digest[:36]

    # Killed after the version and before its alias: the next run sets it.
    client.delete_registered_model_alias("toy+docs", "candidate")
    assert register(server, "toy+docs", store, artifacts) == first
    assert str(client.get_registered_model("toy+docs").aliases["candidate"]) == first.version
    promote(server, first, artifacts["verdict"], True)
    other = _build_all(store, "second")
    # Killed between the logged model and the version: the next run creates no second one.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MlflowClient, "create_model_version", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            register(server, "toy+docs", store, other)
    second = register(server, "toy+docs", store, other)
    experiment = client.get_experiment_by_name("toy+docs")
    assert experiment is not None and len(client.search_logged_models([experiment.experiment_id])) == 2
    assert second.version != first.version
    promote(server, second, other["verdict"], False)
    aliases = client.get_registered_model("toy+docs").aliases
    assert (str(aliases["champion"]), str(aliases["candidate"])) == (first.version, second.version)
    promote(server, second, other["verdict"], True)
    promote(server, second, other["verdict"], True)
    aliases = client.get_registered_model("toy+docs").aliases
    assert (str(aliases["champion"]), str(aliases["previous"])) == (second.version, first.version)
