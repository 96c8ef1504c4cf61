"""Ray: starting it, running the loop on its workers, stopping both. The one file here that imports Ray."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import threading
import time
from dataclasses import dataclass, field, replace
from typing import Any

from stages.training.errors import TrainingError
from stages.training.run import Run
from stages.training.stop import request_stop

ALLOCATOR = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": "100000000000",
    "MALLOC_TOP_PAD_": "268435456",
}
"""Keeps glibc from handing each step's buffers back to the kernel: 1.3 to 1.6 times the speed on a CPU."""

PRELOAD = (
    "numpy",
    "torch",
    "torch.distributed.fsdp",
    "torch.distributed.checkpoint",
    "ray.train.torch",
    "stages.training.loop",
)
"""What idle workers import before they are asked for."""

_FAILED_SECONDS = 10.0
"""How long other ranks may go on after one left a failure as the outcome."""


@dataclass
class _Local:
    """The Ray that this process started.

    It is started in a thread that stays: its processes are told by the kernel to die with the thread that made them,
    so that they die with this process however that ends, and would die with a thread that returned.
    """

    workers: int
    started: threading.Event = field(default_factory=threading.Event)
    ending: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None
    seconds: float = 0.0

    def begin(self) -> None:
        self.thread = threading.Thread(target=self._hold, name="ray", daemon=True)
        self.thread.start()

    def wait(self) -> None:
        """Until Ray is up.

        Raises:
            TrainingError: it did not start.
        """
        self.started.wait()
        if self.error:
            raise TrainingError(f"training: Ray did not start: {self.error}") from self.error

    def end(self) -> None:
        self.ending.set()
        self.thread.join()

    def _hold(self) -> None:
        began = time.monotonic()
        try:
            _init(self.workers)
        except BaseException as error:
            self.error = error
        self.seconds = time.monotonic() - began
        self.started.set()
        if self.error is None:
            self.ending.wait()
            _end_ray()


_local: _Local | None = None
_lock = threading.Lock()


def prestart(workers: int = 2) -> None:
    """Begins to start Ray in the background and returns at once: it takes 5 to 20 s, and a flow has other work till then.

    Whoever calls it calls `shutdown` at the end. With RAY_ADDRESS set it connects to that cluster instead.
    """
    global _local
    with _lock:
        if _local is None:
            _local = _Local(max(1, workers))
            _local.begin()


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
    """
    config = run.settings()
    mine = _local is None
    prestart(config.workers)
    local = _local
    assert local is not None
    try:
        local.wait()
        run.events.emit("ray", start_seconds=round(local.seconds, 2), prestarted=not mine)
        _fit(replace(run, submitted=time.time()))
    finally:
        if mine:
            shutdown()


def _fit(run: Run) -> None:
    config = run.settings()
    storage = tempfile.mkdtemp(prefix="headwater-ray-")
    failure: list[BaseException] = []

    def target() -> None:
        try:
            _trainer(run, storage).fit()
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=target, name="ray-train", daemon=True)
    thread.start()
    try:
        failed_since = None
        while thread.is_alive():
            thread.join(0.1)
            outcome = run.outcome()
            if outcome and outcome["status"] == "failed":
                failed_since = failed_since or time.monotonic()
                if time.monotonic() - failed_since > _FAILED_SECONDS:
                    shutdown()
    except BaseException:
        request_stop(run.path)
        thread.join(config.stop_grace)
        if thread.is_alive():
            shutdown()
        raise
    finally:
        shutil.rmtree(storage, ignore_errors=True)
    if failure and run.outcome() is None:
        raise TrainingError(
            f"training: workers were lost more than {config.max_failures} times, or could not start: {failure[0]}; "
            f"{run.path}/events.jsonl says when"
        ) from failure[0]


def _trainer(run: Run, storage: str) -> Any:
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    from stages.training.parallel import BACKEND, TIMEOUT

    class TellLost(UserCallback):
        """Runs in Ray Train's controller: what was lost is told before the group is started again."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            for rank, error in worker_exceptions.items():
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                run.events.emit("worker_lost", durable=True, rank=rank, reason=reason[0][:500])

    config = run.settings()
    enough = ray.cluster_resources().get("GPU", 0) >= config.workers
    gpu = config.device == "cuda" or (config.device == "auto" and enough)
    return TorchTrainer(
        _worker,
        train_loop_config=run.as_dict(),
        torch_config=TorchConfig(backend=BACKEND if gpu else "gloo", timeout_s=int(TIMEOUT.total_seconds())),
        scaling_config=ScalingConfig(num_workers=config.workers, use_gpu=gpu),
        run_config=RunConfig(
            name=run.folder.replace("/", "-"),
            storage_path=storage,
            failure_config=FailureConfig(max_failures=config.max_failures),
            callbacks=[TellLost()],
        ),
    )


def _worker(values: dict[str, Any]) -> None:
    from stages.training.loop import train

    train(Run(**values))


def _init(workers: int) -> None:
    """Starts a Ray of our own on loopback, or connects to the one that RAY_ADDRESS names."""
    cores = len(os.sched_getaffinity(0))
    # Read by every Ray process; allocator and threads are read by the workers, which inherit them from here: given as
    # a runtime environment they would not match the idle workers that are started ahead.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "OMP_NUM_THREADS": str(max(1, cores // workers)),
        **ALLOCATOR,
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        import ray

        if os.environ.get("RAY_ADDRESS"):
            environment = {"env_vars": {name: settings[name] for name in (*ALLOCATOR, "OMP_NUM_THREADS")}}
            ray.init(runtime_env=environment, logging_level="WARNING", log_to_driver=False)
            return
        ray.init(
            address="local",
            num_cpus=max(cores, workers),
            include_dashboard=True,
            dashboard_host="127.0.0.1",
            _node_ip_address="127.0.0.1",
            object_store_memory=256 << 20,
            logging_level="WARNING",
            log_to_driver=False,
            # Ray gives workers the lowest priority but three; here they are the machine's work.
            _system_config={"preload_python_modules": list(PRELOAD), "worker_niceness": 0},
        )
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _end_ray() -> None:
    """Ends our Ray and waits until every process of it is gone: some of the dashboard's take seconds by themselves."""
    import psutil
    import ray

    session = ray.get_runtime_context().get_session_name()
    roots = [child for child in psutil.Process().children() if session in " ".join(_command(child))]
    processes = roots + [process for root in roots for process in root.children(recursive=True)]
    ray.shutdown()
    _, alive = psutil.wait_procs(processes, timeout=5)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(alive, timeout=5)


def _command(process: Any) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:  # it ended while we looked
        return []
