"""Ray itself: a local cluster of our own on loopback, or the one that RAY_ADDRESS names; started and ended."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Iterator, Mapping
from threading import Event
from typing import TYPE_CHECKING, Protocol

from stages.ports import LOOPBACK_INTERFACE
from stages.training.cluster.ray_folder import ray_folder
from stages.training.errors import TrainingError
from stages.training.runtime.process import ALLOCATOR

if TYPE_CHECKING:
    import psutil

_GROUP = ("TrainController", "RayTrainWorker")
"""Parts of the command lines of a worker group's processes."""
_CORE = ("raylet", "gcs_server")
"""Programs that a driver cannot do without."""
_SIGNALS = {
    # Its handler of SIGTERM would dump the stack and abort, before the flow has recorded what became of its run. Read
    # when Ray is imported.
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}
_IMPORT = {
    **_SIGNALS,
    # Ray takes loopback for a mistake and listens on the machine's address instead, unless this setting says that it is
    # no cluster. Read when Ray is imported.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
_PRIVATE = {
    **_IMPORT,
    # Ray serves measurements without asking for its token; with a port that does not exist it serves none.
    "AUTOSCALER_METRIC_PORT": "65536",
    "DASHBOARD_METRIC_PORT": "65536",
    # gloo and NCCL would listen on the interface that the machine's name resolves to.
    "GLOO_SOCKET_IFNAME": LOOPBACK_INTERFACE,
    "NCCL_SOCKET_IFNAME": LOOPBACK_INTERFACE,
}
"""Keeps a Ray of our own, and the ranks on it, to this machine and this user."""


def is_external() -> bool:
    """Whether a cluster is used that somebody else has started."""
    return bool(os.environ.get("RAY_ADDRESS"))


def import_ray() -> None:
    """Imports Ray so that it can stay on loopback. Whatever else imports it first makes `start_ray` fail."""
    with _environment(_SIGNALS if is_external() else _IMPORT):
        import ray  # noqa: F401


@contextlib.contextmanager
def _environment(settings: Mapping[str, str | None]) -> Iterator[None]:
    """Sets variables of this process, or removes them (None), for a while."""
    before = {name: os.environ.get(name) for name in settings}
    _set(settings)
    try:
        yield
    finally:
        _set(before)


def _set(settings: Mapping[str, str | None]) -> None:
    for name, value in settings.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def start_ray(workers: int) -> None:
    """Starts a Ray of our own on loopback, behind a token, or connects to the one that RAY_ADDRESS names."""
    cores = len(os.sched_getaffinity(0))
    # Read by every Ray process; the workers inherit allocator and threads from here.
    settings: dict[str, str | None] = {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DISABLE_IMPORT_WARNING": "1",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        **_SIGNALS,
        # Or a driver that is asked to stop kills every child of its process, whoever started it.
        "RAY_kill_child_processes_on_worker_exit": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
        "OMP_NUM_THREADS": str(max(1, cores // workers)),
        **ALLOCATOR,
    }
    if not is_external():
        # Without a mode Ray asks for its token, which is in a file of ours.
        settings |= _PRIVATE | {"RAY_AUTH_MODE": None} | ray_folder().settings
    # A worker of Prefect, and any supervisor, sends SIGTERM to our whole process group. It is for the flow alone, which
    # then ends Ray after the last checkpoint: what is started here inherits it blocked, as Ray itself does with SIGINT.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        with _environment(settings):
            import ray

            if is_external():
                environment = {"env_vars": {name: settings[name] for name in (*ALLOCATOR, "OMP_NUM_THREADS")}}
                ray.init(runtime_env=environment, logging_level="ERROR", log_to_driver=False)
            else:
                _start_local_ray(max(cores, workers))
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _start_local_ray(cpus: int) -> None:
    import ray
    from ray._private.node import Node

    # Ray's dashboard has no use here, and is started even without its pages: it then asks the metadata services of
    # three clouds where it is. Ray has no setting against that.
    start_dashboard, Node.start_api_server = Node.start_api_server, lambda *_, **__: None
    try:
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            _temp_dir=str(ray_folder().sessions),
            object_store_memory=256 << 20,
            logging_level="ERROR",
            log_to_driver=False,
            # Ray gives workers the lowest priority but three; here they are the machine's work.
            _system_config={"worker_niceness": 0, "enable_metrics_collection": False},
        )
    finally:
        Node.start_api_server = start_dashboard
    if (address := ray.util.get_node_ip_address()) != "127.0.0.1":
        ray.shutdown()
        raise TrainingError(f"training: Ray listens on {address}, not on loopback: something imported it before us")


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
