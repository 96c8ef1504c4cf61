"""One run on Ray: two workers, one killed on the way; and what it listens on meanwhile."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import psutil
import pyarrow.parquet as pq
import pytest

from infra.doctor.processes import is_loopback
from stages.store import Artifact, Store
from stages.training import training
from stages.training.cluster import driver
from tests.listeners import Listener, answered, listeners
from tests.stages.training.prepared import prepare, train_on, weights_at, weights_of
from tests.stages.training.ranks import begin_imports
from tests.support import training_config

RAY_PATHS = ("/", "/api/jobs/", "/nodes?view=summary", "/logs", "/metrics", "/api/profile")
SETTINGS: dict[str, Any] = {
    "model__size": "1m",
    "steps": 40,
    "data__global_batch_size": 6,
    "schedule__warmup_steps": 5,
    "optimizer__lr": 3e-3,
    "parallelism__precision": "fp32",
    "checkpoint__every_steps": 4,  # the kill comes after the first, and must come before the end
    "validation__every_steps": 40,
    "validation__rows": 4,
    "parallelism__workers": 2,
}


def _events(root: Path) -> list[dict[str, Any]]:
    path = next(iter(root.glob("training/*/events.jsonl")), None)
    text = path.read_text() if path else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _wait(root: Path, kind: str, seconds: float = 400) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = [event for event in _events(root) if event["type"] == kind]
        if found:
            return found[-1]
        time.sleep(0.02)
    raise AssertionError(f"no {kind} event in {seconds} s: {_events(root)}")


def _listeners_but(others: list[Listener]) -> list[Listener]:
    found = listeners([psutil.Process(), *psutil.Process().children(recursive=True)])
    return [listener for listener in found if listener not in others]


def _synchronize(listener: Listener) -> None:
    """A call of Ray's without token that ended the process which it reached, where it was let in."""
    channel = grpc.insecure_channel(f"127.0.0.1:{listener.port}")
    call = channel.stream_stream("/ray.rpc.syncer.RaySyncer/StartSync")
    with pytest.raises(grpc.RpcError):
        list(call(iter([b""]), timeout=2))
    channel.close()


def test_a_killed_worker_is_replaced_and_nothing_is_left_running(tokens_artifact: Artifact, tmp_path: Path):
    """Ray notices that a worker is gone and restarts its group from the last checkpoint: no shorter test has Ray.

    Most of its time is Ray's: it starts one process after the other, and workers twice, which import all they need.
    """
    store, result = Store(tmp_path / "ray"), []
    undisturbed = prepare(tmp_path / "undisturbed", tokens_artifact, **SETTINGS, parallelism__micro_batch_size="auto")
    begin_imports()  # now, or this process would be taken for one of Ray's
    before = {process.pid for process in psutil.Process().children(recursive=True)}
    own_ports = listeners([psutil.Process()])  # of other tests' servers in this process
    driver.prestart(2)
    try:
        # Meanwhile another pair of ranks, which is not killed.
        assert train_on(2, undisturbed)["status"] == "finished"
        waiting = _listeners_but(own_ports)
        entered = answered(waiting, {}, RAY_PATHS)
        with ThreadPoolExecutor(len(waiting)) as pool:
            list(pool.map(_synchronize, waiting))
        thread = threading.Thread(
            target=lambda: result.append(training.run(training_config(**SETTINGS), {"tokens": tokens_artifact}, store))
        )
        thread.start()
        root = Path(store.root)
        pids = _wait(root, "workers")["pids"]
        step = _wait(root, "checkpoint")["step"]
        while_training = _listeners_but(own_ports)
        os.kill(pids[1], signal.SIGKILL)
        thread.join(600)
        started = {process.pid for process in psutil.Process().children(recursive=True)} - before
    finally:
        driver.shutdown()
    assert not [port for port in (*waiting, *while_training) if not is_loopback(port.ip)]
    assert len(waiting) > 5 and not entered, "each asks for Ray's token, or speaks no HTTP"
    events = _events(root)
    assert result, events
    restart = next(event for event in events if event["type"] == "restart")
    assert restart["world"] == 2 and restart["step"] >= step > 0
    assert any(event["type"] == "worker_lost" for event in events)
    history = pq.read_table(result[0].local("loss.parquet")).to_pydict()
    assert history["step"] == list(range(SETTINGS["steps"]))
    assert history["loss"][-1] < history["loss"][0] - 0.5
    assert started and not [pid for pid in started if psutil.pid_exists(pid)]
    assert weights_at(undisturbed) == weights_of(result[0])
