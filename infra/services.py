"""The local services: Prefect server and worker, MLflow, gateway. `up` starts what is not running, `down` ends it all.

They start side by side; each is ready when its health route answers. Everything listens on loopback only.
"""

from __future__ import annotations

import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from infra.health import answers
from infra.process import ManagedProcess
from infra.settings import REPOSITORY, Settings
from stages.store import HeadwaterError

WORK_POOL = "headwater"
RUNS_AT_A_TIME = 1
"""Runs that the work pool starts side by side: one machine trains one model at a time."""
START_SECONDS = 180.0
"""How long a service may take until it answers; slow machines need 40 s for MLflow."""

RUN = "run-"
RUN_GRACE_SECONDS = 90.0
"""A run that is told to stop may write a checkpoint first."""

Say = Callable[[str], None]


class ServiceError(HeadwaterError):
    """A local service that does not start."""


@dataclass(frozen=True)
class Service:
    """One local service: how it is started and when it counts as ready."""

    name: str
    command: list[str]
    env: dict[str, str]
    url: str = ""
    """What a person opens."""
    health: str = ""
    """Answers 200 when the service is ready; empty: ready when it runs."""
    port: int = 0
    port_variable: str = ""
    after: str = ""
    """Name of a service that must be ready before this one is started."""


def services(settings: Settings) -> list[Service]:
    """The services of this installation, in order of start."""
    python = sys.executable
    state = settings.home
    prefect_env = {
        "PREFECT_HOME": str(state / "prefect"),
        "PREFECT_PROFILES_PATH": str(state / "prefect" / "profiles.toml"),
        "PREFECT_SERVER_UI_API_URL": settings.prefect_api_url,
    }
    prefect = [python, "-m", "prefect"]
    return [
        Service(
            name="prefect",
            command=[*prefect, "server", "start", "--host", "127.0.0.1", "--port", str(settings.prefect_port)],
            env=prefect_env,
            url=settings.prefect_url,
            health=f"{settings.prefect_api_url}/health",
            port=settings.prefect_port,
            port_variable="HEADWATER_PREFECT_PORT",
        ),
        Service(
            name="mlflow",
            command=[
                *(python, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(settings.mlflow_port)),
                *("--backend-store-uri", f"sqlite:///{state / 'mlflow' / 'mlflow.db'}"),
                *("--artifacts-destination", str(state / "mlflow" / "artifacts"), "--workers", "1"),
            ],
            env={"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
            url=settings.mlflow_url,
            health=f"{settings.mlflow_url}/health",
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
            health=f"{settings.gateway_url}/headwater/status",
            port=settings.gateway_port,
            port_variable="HEADWATER_GATEWAY_PORT",
        ),
        Service(
            name="prefect-worker",
            command=[
                *(*prefect, "worker", "start", "--pool", WORK_POOL, "--type", "process", "--name", "local"),
                # The pool no longer counts a run that is being cancelled; the worker does until its process has ended.
                *("--limit", str(RUNS_AT_A_TIME)),
            ],
            # A run that somebody starts should begin at once, not at the next quarter of a minute.
            env={**prefect_env, "PREFECT_WORKER_QUERY_SECONDS": "2"},
            after="prefect",
        ),
    ]


def up(settings: Settings, *, wait_for: set[str] | None = None, say: Say = lambda text: None) -> dict[str, float]:
    """Starts every service that is not running and waits for those named (all, if None).

    Returns the seconds that each one waited for took to answer, 0 for what ran already.

    Raises:
        ServiceError: a port is taken by somebody else, or a service ended or did not answer in time.
    """
    wanted = services(settings)
    seconds: dict[str, float] = {}
    with _lock(settings):
        fresh = [s for s in wanted if managed(settings, s.name).find() is None]
        for service in fresh:
            _check_port(service)
        for name in ("prefect", "mlflow", "gateway"):
            (settings.home / name).mkdir(parents=True, exist_ok=True)
        started: dict[str, float] = {}
        for service in fresh:
            if service.after and service.after in started:
                _wait(settings, _named(wanted, service.after), started[service.after])
                seconds[service.after] = time.monotonic() - started[service.after]
            say(f"starting {service.name}")
            started[service.name] = time.monotonic()
            env = {**settings.environment(), **service.env}
            managed(settings, service.name).start(service.command, env, REPOSITORY)
    for service in wanted:
        if wait_for is not None and service.name not in wait_for:
            continue
        begin = started.get(service.name)
        if service.name not in seconds:
            _wait(settings, service, begin or time.monotonic())
            seconds[service.name] = time.monotonic() - begin if begin else 0.0
    return seconds


def mend(settings: Settings, name: str) -> None:
    """Waits until a service answers, and starts it again if it died while others of this installation run.

    Where nothing runs any more somebody stopped it all, and it is not for a run to bring it back.

    Raises:
        ServiceError: it does not answer.
    """
    wanted = services(settings)
    service = _named(wanted, name)
    if service.health and answers(service.health):
        return
    alive = {other.name for other in wanted if managed(settings, other.name).find()}
    if alive and name not in alive:
        up(settings, wait_for={name})
    else:
        _wait(settings, service, time.monotonic())


def down(settings: Settings, say: Say = lambda text: None) -> list[str]:
    """Ends the runs that go on in terminals, then every service, side by side; returns the names of what ran."""

    def stop(name: str) -> str:
        if not managed(settings, name).stop(RUN_GRACE_SECONDS if name.startswith(RUN) else 15.0):
            return ""
        say(f"stopped {name}")
        return name

    with _lock(settings), ThreadPoolExecutor() as pool:
        runs = sorted(path.stem for path in (settings.home / "services").glob(f"{RUN}*.json"))
        names = [service.name for service in services(settings)]
        return [name for group in (runs, names) for name in pool.map(stop, group) if name]


@contextmanager
def announced_run(settings: Settings) -> Iterator[None]:
    """Inside, `down` ends this process too: a run in a terminal is part of what was started."""
    run = managed(settings, f"{RUN}{os.getpid()}")
    run.adopt()
    try:
        yield
    finally:
        run.forget()


def status(settings: Settings) -> list[dict[str, object]]:
    """One row a service: name, running, answering, pid, resident bytes with its children, url."""
    rows = []
    for service in services(settings):
        process = managed(settings, service.name).find()
        rows.append(
            {
                "service": service.name,
                "running": process is not None,
                "answering": process is not None and (not service.health or answers(service.health)),
                "pid": process.pid if process else None,
                "memory_bytes": _memory(process) if process else 0,
                "url": service.url,
                "log": str(managed(settings, service.name).log),
            }
        )
    return rows


def managed(settings: Settings, name: str) -> ManagedProcess:
    """The process record of a service."""
    return ManagedProcess(settings.home / "services", name)


def _named(wanted: list[Service], name: str) -> Service:
    return next(service for service in wanted if service.name == name)


def _wait(settings: Settings, service: Service, began: float) -> None:
    process = managed(settings, service.name)
    while service.health and not answers(service.health):
        if process.find() is None:
            raise ServiceError(
                f"{service.name} ended while starting; the end of {process.log}:\n{process.last_lines()}"
            )
        if time.monotonic() - began > START_SECONDS:
            raise ServiceError(
                f"{service.name} did not answer at {service.health} within {START_SECONDS:.0f} s; "
                f"the end of {process.log}:\n{process.last_lines()}"
            )
        time.sleep(0.2)


def _check_port(service: Service) -> None:
    if not service.port:
        return
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", service.port))
        except OSError as error:
            raise ServiceError(
                f"port {service.port} for {service.name} is in use{_owner(service.port)}; stop what uses it, or choose "
                f"another port with {service.port_variable}=PORT"
            ) from error


def _owner(port: int) -> str:
    try:
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.pid:
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    except psutil.Error:
        return ""
    return ""


def _memory(process: psutil.Process) -> int:
    total = 0
    try:
        for member in [process, *process.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.NoSuchProcess:
        return total
    return total


@contextmanager
def _lock(settings: Settings) -> Iterator[None]:
    """One `up` or `down` at a time on this state folder."""
    folder: Path = settings.home / "services"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
