"""Ray: starting it, running the loop on its workers, stopping both. The one file here that imports Ray."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stages.training.config import TrainingConfig
from stages.training.errors import TrainingError
from stages.training.preflight.checks import check_cards
from stages.training.run import Run
from stages.training.runtime.allocator import ALLOCATOR
from stages.training.runtime.backend import BACKEND, TIMEOUT_SECONDS
from stages.training.runtime.imports import without_collections
from stages.training.stop import request_stop

if TYPE_CHECKING:
    import psutil

_FAILED_SECONDS = 10.0
"""How long other ranks may go on after one left a failure as the outcome."""

_LEAVE_SECONDS = 5.0
"""How long a group whose work is done or not wanted may take to end."""

_GROUP = ("TrainController", "RayTrainWorker")
"""What the command lines of a worker group's processes hold."""
_CORE = ("raylet", "gcs_server")
"""Programs that a driver cannot do without."""

_POLL_SECONDS = 0.05
_ASK_SECONDS = 1.0
"""How often an object store is asked for the outcome."""


class _Group:
    """A worker group of Ray Train, which may be started before it is known what to train.

    Starting one takes 10 s and more: controller, cleaner and workers are new processes that import Ray Train and
    PyTorch one after the other. So the workers can be had early: they import all that they need and wait for a file
    that says what to do. Ray's own idle workers are of no use here, Ray Train's runtime environment matches none.
    """

    def __init__(self, workers: int, max_failures: int, gpu: bool):
        self.kind = (workers, max_failures, gpu)
        self.folder = Path(tempfile.mkdtemp(prefix="headwater-ray-"))
        self.task = self.folder / "run.json"
        self.failure: BaseException | None = None
        self.taken = False
        # Waiting for an event, never by joining the thread: an interrupted join marks a living thread as ended
        # (CPython's bpo-45274 in 3.11), and its workers would be killed in the middle of their last checkpoint.
        self.ended = threading.Event()

    def start(self, run: Run | None = None) -> None:
        """Starts the workers, with their task if it is known; on a cluster, which may share no folder, it must be."""
        self._run = run
        self.taken = run is not None
        threading.Thread(target=self._hold, name="ray-train", daemon=True).start()

    def give(self, run: Run) -> None:
        """Tells waiting workers what to do."""
        aside = self.task.with_suffix(".part")
        aside.write_text(json.dumps(run.as_dict()))
        aside.rename(self.task)
        self.taken = True

    def leave(self, seconds: float) -> None:
        """Dismisses workers that still wait, and gives the group so long to end by itself."""
        with contextlib.suppress(FileNotFoundError):  # it has ended, and its folder with it
            (self.folder / "leave").touch()
        self.ended.wait(seconds)

    @property
    def alive(self) -> bool:
        return not self.ended.is_set()

    def _hold(self) -> None:
        try:
            self.fit()
        except BaseException as error:
            self.failure = error
        shutil.rmtree(self.folder, ignore_errors=True)
        self.ended.set()

    def fit(self) -> None:
        """Starts the group and waits until its work is done."""
        workers, max_failures, gpu = self.kind
        _trainer(workers, max_failures, gpu, self.folder, self.task, self._run).fit()


class _Local:
    """The Ray that this process started (or connected to) and the worker group that waits in it.

    It is started in a thread that stays: its processes are told by the kernel to die with the thread that made them,
    so that they die with this process however that ends, and would die with a thread that returned.
    """

    def __init__(self, workers: int, max_failures: int, early: bool):
        # Not in the thread: a flow imports other large libraries meanwhile, and where two threads wait for each other's
        # imports Python lets one see a half imported module ("Ray did not start: 'ray._version'").
        import ray  # noqa: F401

        self.workers, self.max_failures = workers, max_failures
        self.early = early and not _cluster()
        self.group: _Group | None = None
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

    def take(self, run: Run) -> _Group:
        """A worker group at work on the run: the one that waits if it is of the kind asked for, else a new one."""
        config = run.settings()
        _check_cards(config)
        group = self.group
        if (
            group
            and group.alive
            and not group.taken
            and group.kind == (config.workers, config.max_failures, _gpu(config))
        ):
            group.give(run)
            return group
        if group:
            group.leave(_LEAVE_SECONDS)
        self.group = _Group(config.workers, config.max_failures, _gpu(config))
        self.group.start(run)
        return self.group

    def end(self) -> None:
        self._ending.set()
        self._ended.wait()

    def _hold(self) -> None:
        began = time.monotonic()
        try:
            _init(self.workers)
            if self.early and not self._ending.is_set():
                self.group = _Group(self.workers, self.max_failures, _gpu(TrainingConfig(workers=self.workers)))
                self.group.start()
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began
        self._started.set()
        if self.error is None:
            self._ending.wait()
            try:
                _end_ray(self.group)
            finally:
                self._ended.set()
        else:
            self._ended.set()


_local: _Local | None = None
_lock = threading.Lock()


def prestart(workers: int = 2, max_failures: int = 3) -> None:
    """Begins to start Ray and a group of workers in the background and returns at once.

    That takes 15 to 50 s, in which a flow has other work; a training stage that asks for as many workers then begins
    within a second or two. Whoever calls it calls `shutdown` at the end. With RAY_ADDRESS set it only connects to
    that cluster. Each waiting worker holds about 0.5 GB.
    """
    global _local
    with _lock:
        if _local is None:
            _local = _Local(workers, max_failures, early=workers > 0)


def shutdown() -> None:
    """Ends the Ray that `prestart` began; nothing of it stays alive. Does nothing if there is none."""
    global _local
    with _lock:
        local, _local = _local, None
    if local is not None:
        local.end()


def train_on_ray(run: Run) -> None:
    """Runs the loop on Ray workers and waits for it; the outcome is in the run's folder.

    A lost worker is replaced, with its whole group, from the last whole checkpoint. An exception that reaches this
    thread meanwhile asks the workers to stop at a step boundary, gives them `stop_grace` seconds, and goes on its way.

    Raises:
        TrainingError: Ray did not start, or workers were lost more often than `max_failures`.
        ConfigError: more GPUs are asked for than this machine has.
    """
    global _local
    config = run.settings()
    with _lock:
        mine = _local is None
        if _local is None:
            _local = _Local(config.workers, config.max_failures, early=False)
        local = _local
    try:
        local.wait()
        run.events.emit("ray", start_seconds=round(local.seconds, 2), prestarted=not mine)
        run = replace(run, submitted=time.time())
        _watch(local.take(run), run)
    finally:
        if mine:
            shutdown()


def _watch(group: _Group, run: Run) -> None:
    """Until the run's outcome is there, or its workers are given up."""
    config = run.settings()
    failed_since: float | None = None
    try:
        while group.alive:
            group.ended.wait(_POLL_SECONDS if run.store.is_local else _ASK_SECONDS)
            outcome = run.outcome()
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
        group.ended.wait(config.stop_grace)
        if group.alive:
            shutdown()
        raise
    if group.failure and run.outcome() is None:
        raise TrainingError(
            f"training: workers were lost more than {config.max_failures} times, or could not start: {group.failure}; "
            f"the events in {run.where} say when"
        ) from group.failure


def _trainer(workers: int, max_failures: int, gpu: bool, folder: Path, task: Path, run: Run | None) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    class TellLost(UserCallback):
        """Runs in Ray Train's controller: what was lost is told before the group is started again."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            work = run or (Run(**json.loads(task.read_text())) if task.exists() else None)
            if work is None:  # they were waiting: there is no run yet that could tell of it
                return
            for rank, error in worker_exceptions.items():
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                work.events.emit("worker_lost", durable=True, rank=rank, reason=reason[0][:500])

    return TorchTrainer(
        _worker,
        train_loop_config={"run": run.as_dict() if run else None, "task": str(task)},
        torch_config=TorchConfig(backend=BACKEND if gpu else "gloo", timeout_s=TIMEOUT_SECONDS),
        scaling_config=ScalingConfig(num_workers=workers, use_gpu=gpu),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=max_failures),
            callbacks=[TellLost()],
        ),
    )


def _worker(values: dict[str, Any]) -> None:
    """What each worker runs: the imports, then the task, which it waits for if it was not given."""
    with without_collections():
        import torch.distributed.fsdp
        import torch.distributed.tensor  # noqa: F401

        from stages.training.loop.loop import train

    if values["run"]:
        train(Run(**values["run"]))
        return
    task = Path(values["task"])
    while not task.exists():
        if not task.parent.exists() or (task.parent / "leave").exists():
            return
        time.sleep(_POLL_SECONDS)
    train(Run(**json.loads(task.read_text())))


def _gpu(config: TrainingConfig) -> bool:
    import ray

    enough = ray.cluster_resources().get("GPU", 0) >= config.workers
    return config.device == "cuda" or (config.device == "auto" and enough)


def _check_cards(config: TrainingConfig) -> None:
    """Ray would wait for GPUs that this machine does not have; on a cluster more may come."""
    import ray

    if config.device == "cuda" and not _cluster():
        check_cards(config.workers, int(ray.cluster_resources().get("GPU", 0)))


def _cluster() -> bool:
    return bool(os.environ.get("RAY_ADDRESS"))


def _init(workers: int) -> None:
    """Starts a Ray of our own on loopback, or connects to the one that RAY_ADDRESS names."""
    cores = len(os.sched_getaffinity(0))
    # Read by every Ray process; the workers inherit allocator and threads from here.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Its handler of SIGTERM would dump the stack and abort, before the flow has told what became of its run.
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
        # Or a driver that is told to stop takes every child of its process along, whoever started it.
        "RAY_kill_child_processes_on_worker_exit": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "OMP_NUM_THREADS": str(max(1, cores // workers)),
        **ALLOCATOR,
    }
    if not _cluster():
        # Ray takes loopback for a mistake and listens on the machine's address instead, unless it is told that this
        # is no cluster.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    # A worker of Prefect, and any supervisor, sends SIGTERM to our whole process group. It is for the flow alone, which
    # then ends Ray after the last checkpoint: what is started here inherits it blocked, as Ray itself does with SIGINT.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        import ray

        if _cluster():
            environment = {"env_vars": {name: settings[name] for name in (*ALLOCATOR, "OMP_NUM_THREADS")}}
            ray.init(runtime_env=environment, logging_level="ERROR", log_to_driver=False)
            return
        ray.init(
            address="local",
            num_cpus=max(cores, workers),
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            object_store_memory=256 << 20,
            logging_level="ERROR",
            log_to_driver=False,
            # Ray gives workers the lowest priority but three; here they are the machine's work.
            _system_config={"worker_niceness": 0},
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_ray(group: _Group | None) -> None:
    """Ends our Ray and waits until every process of it is gone.

    `ray.shutdown` while a thread waits for Ray Train crashes this process, so the group's thread ends first: by itself,
    or because its controller and workers are killed. It takes its leave of raylet and GCS, so they go last; every other
    root goes before, since it would wait a second for each to hear SIGTERM, which they do not (see `_init`).
    """
    import psutil
    import ray

    session = ray.get_runtime_context().get_session_name()
    roots = [child for child in psutil.Process().children() if session in " ".join(_command(child))]
    if group is not None:
        group.leave(_LEAVE_SECONDS)
        if group.alive:
            _kill(process for process in _family(roots) if any(part in " ".join(_command(process)) for part in _GROUP))
            group.ended.wait()
    processes = _family(roots)
    _kill(root for root in roots if os.path.basename("".join(_command(root)[:1])) not in _CORE)
    ray.shutdown()
    _kill(processes)
    psutil.wait_procs(processes, timeout=5)


def _family(roots: list[psutil.Process]) -> list[psutil.Process]:
    return roots + [process for root in roots for process in root.children(recursive=True)]


def _kill(processes: Iterable[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _command(process: psutil.Process) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:  # it ended while we looked
        return []
