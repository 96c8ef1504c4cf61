"""Runs of the corpus stage over small sources, and a Ray cluster."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import pytest

from stages.artifact import Artifact, Store
from stages.corpus import CorpusConfig, corpus, inputs_of
from tests.support import free_port


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Artifact]:
    """Runs the stage on `{source name: location}`; keywords are further fields of the config."""

    def run_once(sources: Mapping[str, Path | dict[str, Any]], store: str = "store", **fields: Any) -> Artifact:
        described = {
            name: where if isinstance(where, dict) else {"location": str(where)} for name, where in sources.items()
        }
        config = CorpusConfig.model_validate({"sources": described, "workers": 1, **fields})
        return corpus.run(config, inputs_of(config), Store(tmp_path / store))

    return run_once


@pytest.fixture(scope="module")
def ray_cluster() -> Iterator[str]:
    """Address of a Ray cluster on loopback with two CPUs; nothing of it is left afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="hw-ray-"))  # pytest's own are too long for the names of its sockets
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    settings = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token), "RAY_USAGE_STATS_ENABLED": "0"}
    ports = [free_port() for _ in range(3)]
    address = f"127.0.0.1:{ports[0]}"
    command = [
        *(sys.executable, "-c", "from ray.scripts.scripts import main; main()", "start", "--head", "--block"),
        *("--node-ip-address=127.0.0.1", f"--port={ports[0]}", f"--ray-client-server-port={ports[1]}"),
        *(f"--dashboard-agent-listen-port={ports[2]}", "--min-worker-port=0", "--max-worker-port=0"),
        *("--num-cpus=2", f"--object-store-memory={128 << 20}", "--include-dashboard=false", f"--temp-dir={folder}"),
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
            yield address
        finally:
            processes = [process]
            with contextlib.suppress(psutil.NoSuchProcess):  # it ended by itself: what it said is told above
                processes = [*process.children(recursive=True), process]
            for one in processes:
                with contextlib.suppress(psutil.NoSuchProcess):
                    one.kill()
            psutil.wait_procs(processes, timeout=10)
            shutil.rmtree(folder, ignore_errors=True)
