"""What the driver does around the workers, without Ray."""

from __future__ import annotations

import _thread
import builtins
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from stages.store import Store
from stages.training.cluster import driver
from stages.training.cluster.driver import _wait
from stages.training.cluster.worker_group import GroupKind, WorkerGroup
from stages.training.errors import TrainingError
from stages.training.run import Run
from tests.support import training_config


def _run(folder: Path) -> Run:
    (folder / "run").mkdir()
    config = training_config(recovery__stop_grace_seconds=20).model_dump(mode="json")
    return Run(Store(folder).url, "run", "", "", "", config)


def test_an_interrupt_waits_for_the_workers_last_checkpoint(tmp_path: Path):
    run, finished = _run(tmp_path), []
    # A test run that was started in the background has SIGINT ignored, and interrupt_main would do nothing.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    class Group(WorkerGroup):
        def fit(self) -> None:
            threading.Timer(0.3, _thread.interrupt_main).start()
            while not run.store.exists("run/stop"):
                time.sleep(0.01)
            time.sleep(0.7)  # the checkpoint
            finished.append(True)

    group = Group(GroupKind(2, 0, False))
    group.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            _wait(group, run)
    finally:
        signal.signal(signal.SIGINT, before)
    assert finished and not group.alive


def test_workers_that_are_lost_for_good_are_reported_with_the_reason(tmp_path: Path):
    class Group(WorkerGroup):
        def fit(self) -> None:
            raise RuntimeError("no node left")

    group = Group(GroupKind(2, 0, False))
    group.start()
    with pytest.raises(TrainingError, match="no node left"):
        _wait(group, _run(tmp_path))
    assert not group.folder.exists()


def test_an_outcome_ends_the_wait_and_a_file_assigns_waiting_workers(tmp_path: Path):
    run, done = _run(tmp_path), threading.Event()

    class Group(WorkerGroup):
        def fit(self) -> None:
            while not self.task.exists():
                time.sleep(0.01)
            run.write_outcome(status="finished")
            done.wait(10)

    group = Group(GroupKind(2, 0, False))
    group.start()
    assert not group.assigned
    group.assign(run)
    _wait(group, run)
    assert group.alive and group.assigned
    done.set()
    group.disconnect(5)
    assert not group.alive


def test_ray_is_imported_by_the_thread_that_asks_for_it(monkeypatch: pytest.MonkeyPatch):
    """A thread of its own would import it while others import large libraries, and either may see half a module."""
    seen, real = [], builtins.__import__

    def record(name: str, *arguments: Any, **keywords: Any) -> Any:
        if name == "ray":
            seen.append(threading.current_thread())
        return real(name, *arguments, **keywords)

    monkeypatch.setattr(builtins, "__import__", record)
    monkeypatch.setattr(driver._RaySession, "_hold", lambda self: None)
    driver._RaySession(2, 0, early=True)
    assert set(seen) == {threading.main_thread()}
