"""Runs the gateway: `python -m serving --store URL --state-folder DIR [--port N] [--engine-python PATH] [--warm]`.

SIGTERM or SIGINT end it and its engines. Exit code 2: it could not start; one line on stderr says why.
"""

from __future__ import annotations

import argparse
import fcntl
import logging
import os
import signal
import socket
import sys
from pathlib import Path

import uvicorn

from serving.config import GatewaySettings
from serving.engines.manager import EngineManager
from serving.errors import ServingError
from serving.gateway.app import gateway_app
from serving.gateway.http_protocol import connections_within, protocol_class, raise_file_limit
from serving.gateway.keys import ensure_key
from serving.logs import RepeatFilter
from stages.store import HeadwaterError, Store
from stages.store.private_files import keep_private

LOG = logging.getLogger("headwater.serving")
BACKLOG = 512
"""Connections that the kernel has opened and the gateway has not yet accepted."""


def main(arguments: list[str] | None = None) -> int:
    """Runs until a signal stops it. Returns the exit code."""
    keep_private()
    try:
        settings = parse(arguments)
        serve(settings)
    except HeadwaterError as error:
        print(f"headwater gateway: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: list[str] | None = None) -> GatewaySettings:
    """Settings from the command line."""
    parser = argparse.ArgumentParser(prog="python -m serving", description="Headwater's gateway and engines.")
    parser.add_argument("--store", required=True, help="absolute path or URL of the artifact store")
    parser.add_argument("--state-folder", required=True, type=Path, help="folder for key, logs, lock and caches")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--max-connections", type=int, default=1000, help="open connections of clients")
    parser.add_argument("--key-file", type=Path, help="default: api-key in the state folder")
    parser.add_argument("--log-folder", type=Path, help="default: logs in the state folder")
    parser.add_argument("--engine-python", type=Path, help="Python of the environment with vLLM")
    parser.add_argument("--engine-command", nargs=argparse.REMAINDER, help="all that follows: the command of an engine")
    parser.add_argument("--warm", action="store_true", help="keep a pre-started interpreter for the next engine")
    parser.add_argument("--poll-seconds", type=float, help="time between two reads of the deployment record")
    parser.add_argument("--drain-timeout-seconds", type=float, default=60.0)
    parser.add_argument("--two-engines-gib", type=float, default=12.0, help="memory that a second engine requires")
    options = vars(parser.parse_args(arguments))
    options["state_folder"] = options["state_folder"].absolute()
    if options["engine_python"]:
        options["engine_python"] = options["engine_python"].absolute()  # not resolved: a venv's Python is a link
    return GatewaySettings(**options)


def serve(settings: GatewaySettings) -> None:
    """Runs the gateway until SIGTERM or SIGINT; when this returns its engines have ended.

    Raises:
        ServingError: the port is in use, or another gateway uses the state folder.
    """
    log = logging.StreamHandler(sys.stderr)
    log.addFilter(RepeatFilter())
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", handlers=[log])
    logging.getLogger("httpx").setLevel(logging.WARNING)
    settings.state_folder.mkdir(parents=True, exist_ok=True)
    lock = _lock(settings.state_folder / "gateway.lock")
    listener = listen(settings.host, settings.port)
    try:
        key, created = ensure_key(settings.keys)
        LOG.info("API key: %s%s", settings.keys, " (new)" if created else "")
        server = gateway_server(settings, key)
        LOG.info("listening on http://%s:%d", settings.host, settings.port)
        # uvicorn raises the signal again after a clean shutdown; here that must be exit code 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: sys.exit(0))
        server.run(sockets=[listener])
    finally:
        listener.close()
        os.close(lock)


def gateway_server(settings: GatewaySettings, key: str) -> uvicorn.Server:
    """The gateway's server, to be run on a listening socket; engines start and end with it."""
    manager = EngineManager(settings, Store(settings.store))
    max_connections = connections_within(raise_file_limit(), settings.max_connections)
    config = uvicorn.Config(
        gateway_app(manager, key),
        http=protocol_class(settings, max_connections),
        ws="none",  # a WebSocket would be a connection without the protocol's deadlines
        backlog=BACKLOG,
        access_log=False,
        server_header=False,
        log_config=None,
        log_level="warning",
        lifespan="on",
        timeout_graceful_shutdown=max(1, int(settings.drain_timeout_seconds)),
    )
    return uvicorn.Server(config)


def listen(host: str, port: int) -> socket.socket:
    """Opens a listening socket.

    Raises:
        ServingError: the port is in use, or this user may not listen on it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise ServingError(
            f"cannot listen on port {port} of {host}: {error.strerror}; stop the program that uses it, or choose "
            "another port"
        ) from error
    return listener


def _lock(path: Path) -> int:
    """Locks the state folder for this process; the kernel releases the lock when it ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 32).decode(errors="replace").strip()
        os.close(handle)
        raise ServingError(f"another gateway (pid {owner}) uses {path.parent}; `headwater down` stops it") from None
    os.ftruncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


if __name__ == "__main__":
    sys.exit(main())
