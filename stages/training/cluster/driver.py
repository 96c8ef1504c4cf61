"""Running a training run on Ray: one session a process, a worker group in it, and the wait for the run's outcome."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import replace
from typing import Any

from stages.store.errors import StoreError
from stages.training.cluster.ray_cluster import import_ray, is_external, start_ray, stop_ray
from stages.training.cluster.worker_group import GroupKind, WorkerGroup
from stages.training.config import ParallelismConfig, RecoveryConfig
from stages.training.errors import TrainingError
from stages.training.run import Run
from stages.training.stop import request_stop

log = logging.getLogger(__name__)
_FAILED_SECONDS = 10.0
"""How long other ranks may go on after one has written a failure as the outcome."""

_POLL_SECONDS = 0.05
_REMOTE_POLL_SECONDS = 1.0
"""How often an object store is asked for the outcome."""


class _RaySession:
    """The Ray that this process started (or connected to) and the worker group in it.

    It is started in a thread that stays: the kernel ends its processes with the thread that created them, so that they
    die with this process however that ends, and would die with a thread that returned.
    """

    def __init__(self, workers: int, max_failures: int, early: bool):
        # Not in the thread: a flow imports other large libraries meanwhile, and where two threads wait for each other's
        # imports Python lets one see a half imported module ("Ray did not start: 'ray._version'").
        import_ray()

        self.workers, self.max_failures = workers, max_failures
        self.early = early and not is_external()
        self.group: WorkerGroup | None = None
        self.error: BaseException | None = None
        self.seconds = 0.0
        self._started, self._ending, self._ended = threading.Event(), threading.Event(), threading.Event()
        threading.Thread(target=self._hold, name="ray", daemon=True).start()

    def wait(self) -> None:
        """Until Ray is up.

        Raises:
            TrainingError: it did not start.
        """
        self._started.wait()
        if self.error:
            raise TrainingError(f"training: Ray did not start: {self.error}") from self.error

    def start_run(self, run: Run) -> WorkerGroup:
        """A worker group at work on the run: the one that waits if it is of the kind needed, else a new one."""
        kind = GroupKind.of(run.settings.parallelism, run.settings.recovery)
        group = self.group
        if group and group.alive and not group.assigned and group.kind == kind:
            group.assign(run)
            return group
        if group:
            group.disconnect()
        self.group = WorkerGroup(kind)
        self.group.start(run)
        return self.group

    def end(self) -> None:
        self._ending.set()
        self._ended.wait()

    def _hold(self) -> None:
        began = time.monotonic()
        try:
            start_ray(self.workers)
            if self.early and not self._ending.is_set():
                parallelism = ParallelismConfig(workers=self.workers)
                self.group = WorkerGroup(GroupKind.of(parallelism, RecoveryConfig(max_failures=self.max_failures)))
                self.group.start()
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began
        self._started.set()
        if self.error is None:
            self._ending.wait()
            try:
                stop_ray(self.group)
            finally:
                self._ended.set()
        else:
            self._ended.set()


_session: _RaySession | None = None
_lock = threading.Lock()


def prestart(workers: int = 2, max_failures: int = 3) -> None:
    """Begins to start Ray and a group of workers in the background and returns at once.

    That takes 15 to 50 s, in which a flow has other work; a training stage that asks for as many workers then begins
    within a second or two. Whoever calls it calls `shutdown` at the end. With RAY_ADDRESS set it only connects to
    that cluster. Each waiting worker holds about 0.5 GB.
    """
    global _session
    with _lock:
        if _session is None:
            _session = _RaySession(workers, max_failures, early=workers > 0)


def shutdown() -> None:
    """Ends the Ray that `prestart` began; nothing of it stays alive. Does nothing if there is none."""
    global _session
    with _lock:
        session, _session = _session, None
    if session is not None:
        session.end()


def train_on_ray(run: Run) -> None:
    """Runs the loop on Ray workers and waits for it; the outcome is in the run's folder.

    A lost worker is replaced, with its whole group, from the newest checkpoint. An exception that reaches this thread
    meanwhile asks the workers to stop at a step boundary, gives them `recovery.stop_grace_seconds`.

    Raises:
        TrainingError: Ray did not start, or workers were lost more often than `max_failures`.
        ConfigError: more GPUs are asked for than this machine has.
    """
    global _session
    config = run.settings
    with _lock:
        mine = _session is None
        if _session is None:
            _session = _RaySession(config.parallelism.workers, config.recovery.max_failures, early=False)
        session = _session
    try:
        session.wait()
        run.events.emit("ray", start_seconds=round(session.seconds, 2), prestarted=not mine)
        run = replace(run, submitted=time.time())
        _wait(session.start_run(run), run)
    finally:
        if mine:
            shutdown()


def _look(run: Run) -> dict[str, Any] | None:
    """The outcome, None if there is none yet or the store is away: the workers go on without it, and so do we."""
    try:
        return run.outcome()
    except StoreError as error:
        log.warning("cannot look for the outcome of the training: %s", error)
        return None


def _wait(group: WorkerGroup, run: Run) -> None:
    """Waits until the run's outcome is written, or its workers are given up."""
    config = run.settings
    failed_since: float | None = None
    try:
        while group.alive:
            group.ended.wait(_POLL_SECONDS if run.store.is_local else _REMOTE_POLL_SECONDS)
            outcome = _look(run)
            if outcome is None:
                continue
            if outcome["status"] != "failed":
                return
            failed_since = failed_since or time.monotonic()
            if time.monotonic() - failed_since > _FAILED_SECONDS:
                shutdown()  # the other ranks wait for one that is gone
                return
    except BaseException:
        request_stop(run)
        group.ended.wait(config.recovery.stop_grace_seconds)
        if group.alive:
            shutdown()
        raise
    if group.failure and run.outcome() is None:
        raise TrainingError(
            f"training: workers were lost more than {config.recovery.max_failures} times, or could not start: "
            f"{group.failure}; the events in {run.where} say when"
        ) from group.failure
