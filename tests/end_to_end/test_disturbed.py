"""The whole flow on an object store, interrupted at its most dangerous moments, ends as if it had not been.

A sequence: Ctrl-C, SIGKILL and a cancel in the middle of training, two SIGKILLs while registering, and a run that
finishes. Each part resumes from the last checkpoint of the one before. The last test stops all services in training.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec
import psutil
import pyarrow.parquet as pq
import pytest
from mlflow import MlflowClient

from stages.store import Artifact, Store, read_ref
from stages.store.events import Event
from tests.end_to_end.house import BIN, SHORT, House, own_environment, processes_of
from tests.end_to_end.prefect_client import Prefect
from tests.support import REPOSITORY, ObjectStore

STEPS = 240
SETTINGS = SHORT | {"training.steps": str(STEPS), "training.checkpoint.every_steps": "10"}
PREFECT_PATIENCE = 30.0
"""Seconds from a worker's SIGTERM to its SIGKILL."""
RAY_AGENTS = ("ray::DashboardAgent", "ray::RuntimeEnvAgent")
KILLED = Path(__file__).parent / "killed_while_registering.py"


class Disturbed(House):
    """The installation, and the events of its one training run so far."""

    killed = ""
    """Prefect's id of the run that was killed in training."""
    finished: list[str] = []
    """Training folders of earlier, finished runs."""

    @property
    def arguments(self) -> list[str]:
        return ["run", "biomed", *(f"--set={key}={value}" for key, value in SETTINGS.items())]

    @property
    def services(self) -> Path:
        """Folder of each service's record and log."""
        return self.folder / "home" / "services"

    @property
    def store(self) -> Store:
        return Store(self.env["HEADWATER_STORE"])

    def events(self, kind: str) -> list[Event]:
        """The training run's events of one kind."""
        from stages.store import EventLog

        folders = [folder for folder in self.store.folders("training") if folder not in self.finished]
        assert len(folders) <= 1, "one plan, one run"
        return [e for folder in folders for e in EventLog(self.store, folder).read()[0] if e["type"] == kind]

    def start(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Starts a command as a terminal would: Ctrl-C reaches it."""
        log = (self.folder / "runs.log").open("ab")
        reset = "import os, signal, sys; signal.signal(2, signal.SIG_DFL); os.execv(sys.argv[1], sys.argv[1:])"
        launcher = [sys.executable, "-c", reset, *command]
        return subprocess.Popen(launcher, env=self.env, cwd=self.folder, stdout=log, stderr=log)

    def start_training(self, *changes: str) -> subprocess.Popen[bytes]:
        """Starts `headwater run` and returns once it has written a checkpoint of its own."""
        before = len(self.events("checkpoint"))
        process = self.start([str(BIN / "headwater"), *self.arguments, *changes])
        self.wait(lambda: len(self.events("checkpoint")) > before, process)
        return process

    def wait(self, done: Callable[[], bool], process: subprocess.Popen[bytes] | None = None) -> None:
        deadline = time.monotonic() + 600
        while not done():
            log = (self.folder / "runs.log").read_text()[-3000:]
            assert time.monotonic() < deadline, log
            assert process is None or process.poll() is None, log
            time.sleep(0.2)

    def own_processes(self) -> list[str]:
        """Living processes of this installation, but for services and Ray's agents: those of a killed run wait a minute
        for a server that is gone. The end of the sequence waits for everything."""
        service_pids = set()
        for record in self.services.glob("*.json"):
            pids = json.loads(record.read_text())
            service_pids.add(pids.get("writer_pid"))  # of its log
            try:
                process = psutil.Process(pids["pid"])
                service_pids |= {process.pid, *(child.pid for child in process.children(recursive=True))}
            except psutil.NoSuchProcess:
                continue
        found = {pid: line for pid, line in processes_of(self.folder).items() if pid not in service_pids}
        return [line for line in found.values() if not line.startswith(RAY_AGENTS)]


@pytest.fixture(scope="module")
def disturbed(object_store: ObjectStore, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disturbed]:
    folder = tmp_path_factory.mktemp("disturbed")
    env = own_environment(folder) | object_store.env
    env |= {"HEADWATER_STORE": "s3://disturbed/store", "XDG_CACHE_HOME": str(folder / "cache")}
    del env["AWS_MAX_ATTEMPTS"]  # this store is never stopped: failed requests are retried, as by default
    fsspec.filesystem("s3").mkdir("disturbed")
    house = Disturbed(env, folder, {}, "")
    try:
        yield house
    finally:
        house.command(["make", "stop"], cwd=REPOSITORY)
    house.wait(lambda: not processes_of(folder))


def test_ctrl_c_in_training_leaves_a_checkpoint_and_no_process(disturbed: Disturbed) -> None:
    """A terminal's Ctrl-C reaches flow, Ray, its workers and a store on S3 all at once; it starts the services too."""
    run = disturbed.start_training()
    run.send_signal(signal.SIGINT)
    assert run.wait(300) == 130
    stopped = disturbed.events("stopped")[-1]["step"]
    assert disturbed.events("checkpoint")[-1]["step"] == stopped
    disturbed.wait(lambda: not disturbed.own_processes())
    log = (disturbed.folder / "runs.log").read_text()
    assert "stopped; the same command resumes the run" in log and "Traceback" not in log


def test_a_run_that_is_killed_in_training_leaves_no_process_and_the_next_resumes(disturbed: Disturbed) -> None:
    """Ray ends with the flow's process, which started it, however that ends."""
    stopped = disturbed.events("stopped")[-1]["step"]
    run = disturbed.start_training()
    assert disturbed.events("restart")[-1]["step"] == stopped
    running = {"flow_runs": {"state": {"type": {"any_": ["RUNNING"]}}}}
    (disturbed.killed,) = [found["id"] for found in Prefect(disturbed).post("/flow_runs/filter", running)]
    run.kill()
    run.wait()
    disturbed.wait(lambda: not disturbed.own_processes())


def test_a_deployment_run_that_is_cancelled_in_training_leaves_a_checkpoint_and_no_process(
    disturbed: Disturbed, tmp_path: Path
) -> None:
    """A cancel by Prefect's worker: SIGTERM to the whole process group, SIGKILL half a minute later."""
    restarts, last = len(disturbed.events("restart")), disturbed.events("checkpoint")[-1]["step"]
    stops = len(disturbed.events("stopped"))
    overrides = [f"{key}={value}" for key, value in SETTINGS.items()]
    run = Prefect(disturbed).run_deployment(overrides)
    disturbed.wait(lambda: len(disturbed.events("restart")) > restarts)
    # The killed one may have committed a checkpoint without its event.
    assert last <= disturbed.events("restart")[-1]["step"] <= last + 20, "it resumes where the killed one was"
    asked = time.monotonic()
    disturbed.command([str(BIN / "prefect"), "flow-run", "cancel", run], cwd=tmp_path)
    Prefect(disturbed).wait(run, "Cancelled")
    killed = time.monotonic() - asked > PREFECT_PATIENCE
    disturbed.wait(lambda: not disturbed.own_processes())
    log = (disturbed.services / "prefect-worker.log").read_text()
    terminated = f"Execution of flow run '{run}' was terminated" in log
    assert terminated or killed, "it ended by itself, before Prefect's SIGKILL"
    if killed and len(disturbed.events("stopped")) == stops:
        pytest.skip("the checkpoint of a cancel not tested: this busy machine took longer than Prefect's half minute")
    stopped = disturbed.events("stopped")[-1]["step"]
    assert last < stopped == disturbed.events("checkpoint")[-1]["step"] < STEPS


@pytest.mark.parametrize(
    "method", [pytest.param("create_logged_model", marks=pytest.mark.full), "create_model_version"]
)
def test_a_run_that_is_killed_while_registering_leaves_no_process(disturbed: Disturbed, method: str) -> None:
    """A real MLflow, and a kill between its response and our next request."""
    # It trains to the end first: in one process, from the checkpoint of two.
    run = disturbed.start(
        [sys.executable, str(KILLED), method, *disturbed.arguments, "--set=training.parallelism.workers=0"]
    )
    disturbed.wait(lambda: run.poll() is not None)
    assert run.returncode == -signal.SIGKILL, (disturbed.folder / "runs.log").read_text()[-3000:]
    disturbed.wait(lambda: not disturbed.own_processes())


def test_after_these_kills_the_model_is_built_once_registered_once_and_served(disturbed: Disturbed) -> None:
    """In spite of the interrupted runs: one model, one version, every step and every metric once, and it is served."""
    result = disturbed.headwater(*disturbed.arguments, "--json")
    summary = json.loads(result.stdout)
    assert {row["stage"]: row["state"] for row in summary["stages"]}["training"] == "cached"
    assert all(completion["text"].strip() for completion in summary["completions"])
    training, model = _ref(disturbed, "training"), _ref(disturbed, "champion")
    with training.open("loss.parquet") as file:
        assert pq.read_table(file)["step"].to_pylist() == list(range(STEPS)), "every step once"
    assert len(disturbed.events("restart")) == 3, [disturbed.events(kind) for kind in ("worker_lost", "failed")]

    client = MlflowClient(disturbed.mlflow_url)
    (version,) = client.search_model_versions("name = 'biomed'")
    assert version.tags["headwater.digest"] == model.digest
    assert {alias: str(v) for alias, v in client.get_registered_model("biomed").aliases.items()} == {
        "candidate": version.version,
        "champion": version.version,
    }
    emitted = [(e["step"], e["loss"], int(e["time"] * 1000)) for e in disturbed.events("step")]  # replayed steps twice
    metrics = [(m.step, m.value, m.timestamp) for m in client.get_metric_history(version.run_id or "", "loss")]
    assert sorted(metrics) == sorted(emitted), "every event's metric has arrived, none twice"
    assert client.get_run(version.run_id or "").info.status == "FINISHED"


def test_meanwhile_the_killed_run_has_ended_as_crashed(disturbed: Disturbed) -> None:
    assert "no heartbeat" in Prefect(disturbed).wait(disturbed.killed, "Crashed")["state"]["message"]


def test_and_the_store_is_whole_and_tidy(disturbed: Disturbed) -> None:
    disturbed.ask("verify")
    left = [name for name in disturbed.store.list("") if "/lease-" in name or ".tmp" in name or ".scratch" in name]
    assert left == []
    assert not [path for path in (disturbed.folder / "cache" / "headwater" / "scratch").glob("*/*")]
    disturbed.wait(
        lambda: not [line for line in processes_of(disturbed.folder).values() if line.startswith(RAY_AGENTS)]
    )


@pytest.mark.parametrize("workers", [pytest.param(2, marks=pytest.mark.full), 0])
def test_stopping_the_installation_in_training_leaves_a_checkpoint_and_no_process(
    disturbed: Disturbed, workers: int
) -> None:
    """`make stop` ends another process's run with the services. Last, since they are gone then; of another plan."""
    disturbed.finished = list(disturbed.store.folders("training"))
    run = disturbed.start_training(
        f"--set=training.seed={1 + workers}", f"--set=training.parallelism.workers={workers}"
    )
    disturbed.command(["make", "stop"], cwd=REPOSITORY)
    assert run.wait(300) != 0
    assert processes_of(disturbed.folder) == {}
    assert disturbed.events("checkpoint")[-1]["step"] == disturbed.events("stopped")[-1]["step"]


def _ref(house: Disturbed, name: str) -> Artifact:
    artifact = read_ref(house.store, "biomed", name)
    assert artifact is not None
    return artifact
