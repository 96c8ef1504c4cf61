"""A group of training workers on Ray Train, which may be started before it has a task."""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

from stages.training.cluster.ray_cluster import is_external
from stages.training.cluster.ray_folder import ray_folder
from stages.training.config import ParallelismConfig, RecoveryConfig
from stages.training.preflight.checks import check_cards
from stages.training.run import Run
from stages.training.runtime.process import BACKEND, TIMEOUT_SECONDS, without_collections

_POLL_SECONDS = 0.05
DISCONNECT_SECONDS = 5.0
"""How long a group whose work is done or not wanted may take to end."""
_DISMISSED = "dismissed"
"""File in a group's folder that ends workers which wait for a task."""


class GroupKind(NamedTuple):
    """What a group can be used for."""

    workers: int
    max_failures: int
    gpu: bool

    @classmethod
    def of(cls, parallelism: ParallelismConfig, recovery: RecoveryConfig) -> GroupKind:
        """The group that a run needs. Ray must be up: on `device: auto` its GPUs decide.

        Raises:
            ConfigError: more GPUs are asked for than this machine has.
        """
        import ray

        cards = int(ray.cluster_resources().get("GPU", 0))
        if parallelism.device == "cuda" and not is_external():
            # Ray would wait for GPUs that this machine does not have; on a cluster more may come.
            check_cards(parallelism.workers, cards)
        gpu = parallelism.device == "cuda" or (parallelism.device == "auto" and cards >= parallelism.workers)
        return cls(parallelism.workers, recovery.max_failures, gpu)


class WorkerGroup:
    """A worker group of Ray Train, which may be started before the task is known.

    Starting one takes 10 s and more: controller, cleaner and workers are new processes that import Ray Train and
    PyTorch one after the other. So the workers can be started early: they import all that they need and wait for a file
    with their task. Ray's own idle workers are of no use here, Ray Train's runtime environment matches none.
    """

    def __init__(self, kind: GroupKind):
        self.kind = kind
        self.folder = Path(tempfile.mkdtemp(prefix="group-", dir=ray_folder().root))
        self.task = self.folder / "run.json"
        self.failure: BaseException | None = None
        self.assigned = False
        # Waiting for an event, never by joining the thread: an interrupted join marks a living thread as ended
        # (CPython's bpo-45274 in 3.11), and its workers would be killed in the middle of their last checkpoint.
        self.ended = threading.Event()

    def start(self, run: Run | None = None) -> None:
        """Starts the workers, with their task if it is known; on an external cluster, which may share no folder with
        this machine, it must be."""
        self._run = run
        self.assigned = run is not None
        threading.Thread(target=self._hold, name="ray-train", daemon=True).start()

    def assign(self, run: Run) -> None:
        """Gives waiting workers their task."""
        aside = self.task.with_suffix(".part")
        aside.write_text(json.dumps(run.as_dict()))
        aside.rename(self.task)
        self.assigned = True

    def disconnect(self, seconds: float = DISCONNECT_SECONDS) -> None:
        """Dismisses workers that still wait, and gives the group so long to end by itself."""
        with contextlib.suppress(FileNotFoundError):  # it has ended, and its folder with it
            (self.folder / _DISMISSED).touch()
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
        _trainer(self.kind, self.folder, self.task, self._run).fit()


def _trainer(kind: GroupKind, folder: Path, task: Path, run: Run | None) -> Any:
    from ray.train import FailureConfig, RunConfig, ScalingConfig, UserCallback
    from ray.train.torch import TorchConfig, TorchTrainer

    from stages.training.cluster.rendezvous import WithoutPort

    class ReportLostWorkers(UserCallback):
        """Runs in Ray Train's controller: the loss is in the run's events before the group is started again."""

        def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
            work = run or (Run(**json.loads(task.read_text())) if task.exists() else None)
            if work is None:  # they were waiting: there is no run yet
                return
            for rank, error in worker_exceptions.items():
                reason = str(error).strip().splitlines()[-1:] or [type(error).__name__]
                work.events.emit("worker_lost", durable=True, rank=rank, reason=reason[0][:500])

    backend = BACKEND if kind.gpu else "gloo"
    own_group = "" if is_external() else backend  # several machines need a rendezvous over the network
    return TorchTrainer(
        _worker,
        train_loop_config={"run": run.as_dict() if run else None, "task": str(task), "backend": own_group},
        torch_config=(WithoutPort if own_group else TorchConfig)(backend=backend, timeout_s=TIMEOUT_SECONDS),
        scaling_config=ScalingConfig(num_workers=kind.workers, use_gpu=kind.gpu),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=kind.max_failures),
            callbacks=[ReportLostWorkers()],
        ),
    )


def _worker(values: dict[str, Any]) -> None:
    """What each worker runs: the imports, then the task, which it waits for if it was not given one."""
    with without_collections():
        import torch.distributed.fsdp
        import torch.distributed.tensor  # noqa: F401

        from stages.training.cluster.rendezvous import join_group
        from stages.training.loop.loop import train
        from stages.training.parallelism.ranks import destroy_process_group

    task = Path(values["task"])
    if values["backend"]:
        join_group(values["backend"], task.parent)
    run = Run(**values["run"]) if values["run"] else _wait_for_task(task)
    if run is not None:
        train(run)
    destroy_process_group()


def _wait_for_task(task: Path) -> Run | None:
    """The run that the workers are given; None if they are not wanted any more."""
    while not task.exists():
        if not task.parent.exists() or (task.parent / _DISMISSED).exists():
            return None
        time.sleep(_POLL_SECONDS)
    return Run(**json.loads(task.read_text()))
