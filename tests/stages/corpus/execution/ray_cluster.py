"""A Ray cluster on loopback, as small as one can be started."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.support import free_port


@dataclass(frozen=True)
class Cluster:
    """A cluster that runs."""

    address: str
    head: psutil.Process
    """`ray start`: whatever belongs to the cluster descends from it."""

    def actors(self) -> list[psutil.Process]:
        """Its processes that run ranks. Other clusters on the machine have theirs."""
        found = []
        for process in self.head.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if " ".join(process.cmdline()).startswith("ray::_Worker"):
                    found.append(process)
        return found


@contextmanager
def started() -> Iterator[Cluster]:
    """A cluster with two CPUs, which this process's environment lets in; nothing of it is left afterwards.

    The autoscaler and the log monitor are left out: nothing here asks them, and each takes seconds to start.
    """
    folder = Path(tempfile.mkdtemp(prefix="hw-ray-"))  # pytest's own are too long for the names of its sockets
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    ports = [free_port() for _ in range(3)]
    command = [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", f"--port={ports[0]}", f"--dashboard-agent-listen-port={ports[1]}"),
        *("--min-worker-port=0", "--max-worker-port=0", f"--ray-client-server-port={ports[2]}", "--no-monitor"),
        *("--include-dashboard=false", "--include-log-monitor=false"),
        *("--num-cpus=2", f"--object-store-memory={128 << 20}", f"--temp-dir={folder}"),
    ]
    # Ray would listen on the machine's address instead of loopback, unless it is told that this is no cluster.
    environment = {**os.environ, **settings, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    log = folder / "start.log"
    with log.open("wb") as out, pytest.MonkeyPatch.context() as patch:
        process = psutil.Popen(command, env=environment, stdout=out, stderr=out, start_new_session=True)
        try:
            deadline = time.monotonic() + 90
            while b"runtime started" not in log.read_bytes():
                assert process.poll() is None and time.monotonic() < deadline, log.read_text()
                time.sleep(0.05)
            for name, value in settings.items():
                patch.setenv(name, value)
            yield Cluster(f"127.0.0.1:{ports[0]}", process)
        finally:
            processes = [process]
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself: what it said is told above
                processes = [*process.children(recursive=True), process]
            for one in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(processes, timeout=10)
            shutil.rmtree(folder, ignore_errors=True)
