"""Ray itself: a local cluster of our own on loopback, or the one that RAY_ADDRESS names; started and ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable
from threading import Event
from typing import TYPE_CHECKING, Protocol

from stages.training.runtime.process import ALLOCATOR

if TYPE_CHECKING:
    import psutil

_GROUP = ("TrainController", "RayTrainWorker")
"""Parts of the command lines of a worker group's processes."""
_CORE = ("raylet", "gcs_server")
"""Programs that a driver cannot do without."""


def is_external() -> bool:
    """Whether a cluster is used that somebody else has started."""
    return bool(os.environ.get("RAY_ADDRESS"))


def start_ray(workers: int) -> None:
    """Starts a Ray of our own on loopback, or connects to the one that RAY_ADDRESS names."""
    cores = len(os.sched_getaffinity(0))
    # Read by every Ray process; the workers inherit allocator and threads from here.
    settings = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Its handler of SIGTERM would dump the stack and abort, before the flow has recorded what became of its run.
        "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
        # Or a driver that is asked to stop kills every child of its process, whoever started it.
        "RAY_kill_child_processes_on_worker_exit": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "OMP_NUM_THREADS": str(max(1, cores // workers)),
        **ALLOCATOR,
    }
    if not is_external():
        # Ray takes loopback for a mistake and listens on the machine's address instead, unless this
        # setting says that it is no cluster.
        settings["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    # A worker of Prefect, and any supervisor, sends SIGTERM to our whole process group. It is for the flow alone, which
    # then ends Ray after the last checkpoint: what is started here inherits it blocked, as Ray itself does with SIGINT.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        import ray

        if is_external():
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


class Group(Protocol):
    """A worker group that has to end before Ray does."""

    ended: Event

    @property
    def alive(self) -> bool: ...

    def disconnect(self) -> None:
        """Gives it some seconds to end by itself."""


def stop_ray(group: Group | None) -> None:
    """Ends our Ray and waits until every process of it is gone.

    `ray.shutdown` while a thread waits for Ray Train crashes this process, so the group's thread ends first: by itself,
    or because its controller and workers are killed. It deregisters with raylet and GCS, so they go last; every other
    root goes before, since it would wait a second for each to react to SIGTERM, which is blocked (see `start_ray`).
    """
    import psutil
    import ray

    session = ray.get_runtime_context().get_session_name()
    roots = [child for child in psutil.Process().children() if session in " ".join(_command_line(child))]
    if group is not None:
        group.disconnect()
        if group.alive:
            family = _with_descendants(roots)
            _kill(process for process in family if any(part in " ".join(_command_line(process)) for part in _GROUP))
            group.ended.wait()
    processes = _with_descendants(roots)
    _kill(root for root in roots if os.path.basename("".join(_command_line(root)[:1])) not in _CORE)
    ray.shutdown()
    _kill(processes)
    psutil.wait_procs(processes, timeout=5)


def _with_descendants(roots: list[psutil.Process]) -> list[psutil.Process]:
    return roots + [process for root in roots for process in root.children(recursive=True)]


def _kill(processes: Iterable[psutil.Process]) -> None:
    import psutil

    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()


def _command_line(process: psutil.Process) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:  # it ended meanwhile
        return []
