"""The local services: Prefect server and worker, MLflow, gateway. `up` starts those missing, `down` stops all of them.

They start in parallel; each is ready when its health route answers. All of them listen on loopback only, and each asks
for a password (`infra.credentials`) or, the gateway, for its API key.
"""

from __future__ import annotations

import fcntl
import os
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.credentials import (
    Credential,
    client_credentials,
    client_environment,
    credential_file,
    ensure_credentials,
    mlflow_server_environment,
    prefect_server_environment,
    without_credentials,
)
from infra.health import answer_status, is_healthy
from infra.process import ManagedProcess
from infra.settings import REPOSITORY, Settings
from stages.ports import listen_error
from stages.store import HeadwaterError
from stages.store.hashing import cache_folder
from stages.store.private_files import make_private_folder

WORK_POOL = "headwater"
MAX_CONCURRENT_RUNS = 1
"""Concurrency limit of the work pool: one machine trains one model at a time."""
START_TIMEOUT_SECONDS = 180.0
"""Until a service answers; slow machines need 40 s for MLflow."""

_TEMPORARY, _LONGEST_TEMPORARY = "tmp", 64
"""Folder for temporary files in the state folder, and the most bytes of its path; sockets in it may have 107."""
RUN_PREFIX = "run-"
SERVICE_GRACE_SECONDS, RUN_GRACE_SECONDS = 15.0, 90.0
"""A run that is stopped may write a checkpoint first."""

Echo = Callable[[str], None]
"""Shows a line to the user."""


class ServiceError(HeadwaterError):
    """A local service does not start or does not answer."""


@dataclass(frozen=True)
class Service:
    """One local service: its command, and when it is ready."""

    name: str
    command: list[str]
    env: dict[str, str]
    url: str = ""
    """For people to open."""
    health: str = ""
    """URL that answers 200 when the service is ready; empty: ready as soon as it runs."""
    port: int = 0
    port_variable: str = ""
    """Environment variable that sets the port."""
    locked: str = ""
    """URL that asks for the service's password; empty: its lock is its own."""
    depends_on: str = ""
    """Name of a service that must be ready before this one is started."""
    client_of: tuple[Credential, ...] = ()
    """Services whose password it needs as their client."""


def services(settings: Settings) -> list[Service]:
    """The services of this installation, in the order in which they are started."""
    python = sys.executable
    state = settings.home
    prefect_env = {
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_PROFILES_PATH": str(state / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": settings.prefect_url,
    }
    return [
        Service(
            name="prefect",
            command=[python, "-m", "infra.prefect_server", "--port", str(settings.prefect_port)],
            env=prefect_env,
            client_of=("prefect",),
            url=settings.prefect_url,
            health=f"{settings.prefect_api_url}/health",
            locked=f"{settings.prefect_api_url}/admin/version",
            port=settings.prefect_port,
            port_variable="HEADWATER_PREFECT_PORT",
        ),
        Service(
            name="mlflow",
            command=[
                *(python, "-m", "infra.mlflow_server", "--port", str(settings.mlflow_port)),
                *("--folder", str(state / "mlflow")),
            ],
            env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            url=settings.mlflow_url,
            health=f"{settings.mlflow_url}/health",
            locked=f"{settings.mlflow_url}/api/2.0/mlflow/experiments/get?experiment_id=0",
            port=settings.mlflow_port,
            port_variable="HEADWATER_MLFLOW_PORT",
        ),
        Service(
            name="gateway",
            command=[
                *(python, "-m", "serving", "--store", settings.store, "--port", str(settings.gateway_port)),
                *("--state-folder", str(state / "gateway"), "--key-file", str(settings.api_key_file)),
                *("--engine-python", str(settings.serve_python), "--warm"),
            ],
            env={},
            url=f"{settings.gateway_url}/v1",
            health=f"{settings.gateway_url}/health/live",
            port=settings.gateway_port,
            port_variable="HEADWATER_GATEWAY_PORT",
        ),
        Service(
            name="prefect-worker",
            command=[
                *(
                    python,
                    "-m",
                    "prefect",
                    "worker",
                    "start",
                    "--pool",
                    WORK_POOL,
                    "--type",
                    "process",
                    "--name",
                    "local",
                ),
                # The pool no longer counts a run that is being cancelled; the worker does until its process has ended.
                *("--limit", str(MAX_CONCURRENT_RUNS)),
            ],
            # So that a run starts at once, not up to 15 s later.
            env={**prefect_env, "PREFECT_WORKER_QUERY_SECONDS": "2", **_temporary_folder(state)},
            depends_on="prefect",
            client_of=("prefect", "mlflow"),
        ),
    ]


def _temporary_folder(state: Path) -> dict[str, str]:
    """Variables that keep what the worker and its runs write for a while in the state folder.

    Prefect's runner takes a folder of a fixed name in the machine's. Ray's sockets need a short path, and Python's
    between processes one that is not long: a long state folder leaves things as they are.
    """
    folder = state / _TEMPORARY
    if len(os.fsencode(folder)) > _LONGEST_TEMPORARY:
        return {}
    return {"TMPDIR": str(folder), "RAY_TMPDIR": os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()}


def up(settings: Settings, *, wait_for: set[str] | None = None, echo: Echo = lambda line: None) -> dict[str, float]:
    """Starts every service that is not running, and waits until those in `wait_for` (None: all) are ready.

    Returns the seconds until each of those was ready; 0 if it was running before.

    Raises:
        ServiceError: a port is in use, or a service exited or did not answer in time.
    """
    all_services = services(settings)
    seconds: dict[str, float] = {}
    with _lock(settings):
        missing = [s for s in all_services if service_process(settings, s.name).find() is None]
        for folder in (settings.home, cache_folder()):
            _close_to_others(folder, echo)
        for service in missing:
            _check_port(service)
        ensure_credentials(settings)
        for service in all_services:
            if service not in missing and (error := lock_error(settings, service)):
                raise ServiceError(f"{error}; `headwater down`, then start again")
        for name in ("prefect", "mlflow", "gateway", _TEMPORARY):
            make_private_folder(settings.home / name)
        started: dict[str, float] = {}
        for service in missing:
            dependency = service.depends_on
            if dependency in started:
                _wait_until_ready(settings, _find_service(all_services, dependency), started[dependency])
                seconds[dependency] = time.monotonic() - started[dependency]
            echo(f"starting {service.name}")
            started[service.name] = time.monotonic()
            env = environment_of(settings, service)
            service_process(settings, service.name).start(service.command, env, REPOSITORY)
    for service in all_services:
        if wait_for is not None and service.name not in wait_for:
            continue
        begin = started.get(service.name)
        if service.name not in seconds:
            _wait_until_ready(settings, service, begin or time.monotonic())
            seconds[service.name] = time.monotonic() - begin if begin else 0.0
    return seconds


def _close_to_others(folder: Path, echo: Echo) -> None:
    """Makes a folder, which has documents, passwords or what is loaded as code, this user's alone."""
    if not folder.is_dir():
        return
    mode = stat.S_IMODE(folder.stat().st_mode)
    if mode & 0o077:
        folder.chmod(0o700)
        echo(f"{folder} had mode {mode:o} and is closed to other users now")


def environment_of(settings: Settings, service: Service) -> dict[str, str]:
    """All variables of a service: of the passwords, those that it needs."""
    env = {**without_credentials(os.environ), **settings.environment(), **service.env}
    env |= client_environment(settings, service.client_of)
    if service.name == "prefect":
        env |= prefect_server_environment(settings)
    if service.name == "mlflow":
        env |= mlflow_server_environment(settings)
    return env


def lock_error(settings: Settings, service: Service) -> str:
    """What is wrong with the lock of a service that runs; empty if nothing is, or it does not answer."""
    if not service.locked:
        return ""
    if 0 < answer_status(service.locked) < 400:
        return f"{service.name} is running without a password: an earlier version of Headwater has started it"
    if answer_status(service.locked, client_credentials(settings, service.name)) == 401:
        file = credential_file(settings, service.name)
        return f"{service.name} is running with another password than {file} has: it was replaced meanwhile"
    return ""


def ensure_running(settings: Settings, name: str) -> None:
    """Waits until a service is ready; restarts it if it died while other services of this installation still run.

    If none of them runs the user has stopped them, and a run must not start them again.

    Raises:
        ServiceError: it does not answer.
    """
    all_services = services(settings)
    service = _find_service(all_services, name)
    ours = service_process(settings, name).find() is not None  # or another user's program may have its port
    if ours and service.health and is_healthy(service.health):
        return
    running = {other.name for other in all_services if service_process(settings, other.name).find()}
    if running and name not in running:
        up(settings, wait_for={name})
    else:
        _wait_until_ready(settings, service, time.monotonic())


def down(settings: Settings, echo: Echo = lambda line: None) -> list[str]:
    """Stops the runs in terminals, then the services, each group in parallel; returns the names of what was running."""

    def stop(name: str) -> str:
        grace_seconds = RUN_GRACE_SECONDS if name.startswith(RUN_PREFIX) else SERVICE_GRACE_SECONDS
        if not service_process(settings, name).stop(grace_seconds):
            return ""
        echo(f"stopped {name}")
        return name

    with _lock(settings), ThreadPoolExecutor() as pool:
        runs = sorted(path.stem for path in (settings.home / "services").glob(f"{RUN_PREFIX}*.json"))
        names = [service.name for service in services(settings)]
        return [name for group in (runs, names) for name in pool.map(stop, group) if name]


@contextmanager
def register_run(settings: Settings) -> Iterator[None]:
    """Registers this process as a run in a terminal, which `down` stops too, until the end of the `with` block."""
    run = service_process(settings, f"{RUN_PREFIX}{os.getpid()}")
    run.register_self()
    try:
        yield
    finally:
        run.remove_record()


def status(settings: Settings) -> list[dict[str, object]]:
    """One row per service: name, running, healthy, pid, resident bytes of it and its descendants, URL, log."""
    rows = []
    for service in services(settings):
        process = service_process(settings, service.name).find()
        rows.append(
            {
                "service": service.name,
                "running": process is not None,
                "healthy": process is not None and (not service.health or is_healthy(service.health)),
                "pid": process.pid if process else None,
                "memory_bytes": _resident_bytes(process) if process else 0,
                "url": service.url,
                "log": str(service_process(settings, service.name).log),
            }
        )
    return rows


def service_process(settings: Settings, name: str) -> ManagedProcess:
    """The process of a service or of a run in a terminal, running or not."""
    return ManagedProcess(settings.home / "services", name)


def _find_service(candidates: list[Service], name: str) -> Service:
    return next(service for service in candidates if service.name == name)


def _wait_until_ready(settings: Settings, service: Service, began: float) -> None:
    process = service_process(settings, service.name)
    while True:
        if process.find() is not None and (not service.health or is_healthy(service.health)):
            return
        if process.find() is None:
            raise ServiceError(
                f"{service.name} exited while starting; last lines of {process.log}:\n{process.last_lines()}"
            )
        if time.monotonic() - began > START_TIMEOUT_SECONDS:
            raise ServiceError(
                f"{service.name} did not answer at {service.health} within {START_TIMEOUT_SECONDS:.0f} s; "
                f"last lines of {process.log}:\n{process.last_lines()}"
            )
        time.sleep(0.2)


def _check_port(service: Service) -> None:
    if service.port and (error := listen_error(service.port)):
        raise ServiceError(
            f"port {service.port} for {service.name} is in use{_port_owner(service.port)}; stop that program, or set "
            f"another port with {service.port_variable}=PORT"
        ) from error


def _port_owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""


def _resident_bytes(process: psutil.Process) -> int:
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """Allows one `up` or `down` at a time in this state folder."""
    folder: Path = settings.home / "services"
    make_private_folder(folder)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
