"""What processes listen on, and what a stranger gets there."""

from __future__ import annotations

import http.client
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psutil

PATHS = (
    *("/", "/api/deployments/filter", "/api/2.0/mlflow/experiments/search", "/v1/models", "/headwater/status"),
    *("/api/jobs/", "/api/cluster_status", "/nodes?view=summary", "/logs", "/metrics", "/api/local_raylet_healthz"),
)
"""Routes of Prefect, MLflow, the gateway, vLLM and Ray."""
FOREIGN = {"Host": "evil.example", "Origin": "http://evil.example"}
TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Listener:
    """An address that a process accepts TCP connections on."""

    ip: str
    port: int
    command: str


def listeners(processes: Iterable[psutil.Process]) -> list[Listener]:
    """The listeners of these processes, as `ss -ltnp` shows them."""
    found = set()
    for process in processes:
        try:
            command = " ".join(process.cmdline())[:120]
            for connection in process.net_connections("tcp"):
                if connection.status == psutil.CONN_LISTEN and connection.laddr:
                    found.add(Listener(connection.laddr.ip, connection.laddr.port, command))
        except psutil.Error:  # it has ended
            continue
    return sorted(found, key=lambda one: one.port)


def answered(found: Iterable[Listener], headers: dict[str, str], paths: Iterable[str] = PATHS) -> list[str]:
    """The requests with these headers and without credentials that are answered 2xx or 3xx, as
    `4200 POST /api/jobs/: 200`. All at once: a listener that does not speak HTTP may leave one waiting."""
    listeners = list(found)
    with ThreadPoolExecutor(len(listeners) or 1) as pool:
        return [line for lines in pool.map(lambda one: _answered_by(one, headers, paths), listeners) for line in lines]


def _answered_by(listener: Listener, headers: dict[str, str], paths: Iterable[str]) -> list[str]:
    found = []
    for path in paths:
        for method, body in (("GET", None), ("POST", b"{}")):
            try:
                status = _status(listener.port, method, path, body, headers)
            except TimeoutError:  # it does not speak HTTP, whatever the path
                return found
            if status and status < 400:
                found.append(f"{listener.port} {method} {path}: {status}")
    return found


def _status(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> int:
    """The status of the answer; 0 where what listens does not speak HTTP."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
    try:
        connection.request(method, path, body, headers)
        return connection.getresponse().status
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException):
        return 0
    finally:
        connection.close()
