"""A store with models in it, and a gateway process over stand-in engines (or over vLLM)."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil
import pytest

from serving.client import gateway_status
from serving.config import ServingConfig
from serving.keys import read_key
from serving.record import Deployment, DeploymentRecord, deployment_of, write_record
from stages.artifact import Artifact, ArtifactWriter, Store
from tests.support import REPOSITORY, alive, free_port

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


def wait_for(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Returns when the condition holds; fails when it still does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        time.sleep(0.05)


def put_model(store: Store, name: str, files: dict[str, bytes]) -> Artifact:
    """A model artifact with these files in its weights folder."""
    writer = ArtifactWriter(store, f"model/{name}", "model", 1, name, {}, {})
    for path, data in files.items():
        writer.put(f"weights/{path}", data)
    return writer.commit()


def fake_model(
    store: Store, name: str, architecture: str = "Fake", chat: bool = False, extra: dict[str, bytes] | None = None
) -> Artifact:
    """A model that only the stand-in engine can serve."""
    config = {"architectures": [architecture], "max_position_embeddings": 64, "name": name}
    files = {"config.json": json.dumps(config).encode(), "model.safetensors": safetensors(name)}
    if chat:
        files["chat_template.jinja"] = b"{{ messages }}"
    return put_model(store, name, files | (extra or {}))


def safetensors(text: str = "") -> bytes:
    """A SafeTensors file without tensors."""
    header = json.dumps({"__metadata__": {"text": text}}).encode()
    return len(header).to_bytes(8, "little") + header


@dataclass
class Gateway:
    """A gateway process of a test."""

    process: subprocess.Popen[bytes]
    url: str
    state: Path
    store: Store

    @property
    def key(self) -> str:
        return read_key(self.state / "api-key")

    def client(self, **options: object) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.key}"}
        return httpx.Client(base_url=self.url, headers=headers, timeout=60.0, **options)  # type: ignore[arg-type]

    def engine_processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def engine_pid(self) -> int:
        """The engine itself: what the supervisor runs."""
        return next(p.pid for p in self.engine_processes() if "fake_engine.py" in p.cmdline()[1])

    def logs(self) -> str:
        return "".join(path.read_text() for path in (self.state / "logs").glob("engine-*.log"))

    def serve(self, model: Artifact, version: int, serving: ServingConfig | None = None) -> Deployment:
        """Writes the record and waits until the model is served."""
        entry = deployment_of(model, "toy", version, serving)
        write_record(self.store, DeploymentRecord(stable=entry))

        def served() -> bool:
            serving = gateway_status(self.url).serving
            return serving is not None and serving.key == entry.key

        wait_for(served)
        return entry


def start_gateway(store: Store, state: Path, *options: str) -> Gateway:
    """Starts `python -m serving` and returns when it listens."""
    port = free_port()
    command = [sys.executable, "-m", "serving", "--store", store.url, "--state-folder", str(state)]
    command += ["--port", str(port), "--poll-seconds", "0.1", *options]
    state.mkdir(parents=True, exist_ok=True)
    with (state / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    gateway = Gateway(process, f"http://127.0.0.1:{port}", state, store)

    def listening() -> bool:
        assert process.poll() is None, (state / "gateway.log").read_text()
        try:
            return httpx.get(f"{gateway.url}/health").status_code in (200, 503)
        except httpx.TransportError:
            return False

    wait_for(listening, 60.0)
    return gateway


def start_fake(store: Store, state: Path, *options: str) -> Gateway:
    """A gateway over stand-in engines, two of them at once however little memory this machine has."""
    room = () if "--two-engines-gib" in options else ("--two-engines-gib", "0")
    engine = ("--engine-command", sys.executable, str(FAKE_ENGINE))
    return start_gateway(store, state, "--drain-timeout", "10", *room, *options, *engine)


def stop_gateway(gateway: Gateway) -> None:
    """SIGTERM; fails if anything of its engines is left afterwards."""
    if gateway.process.poll() is not None:
        return
    below = gateway.engine_processes()
    gateway.process.send_signal(signal.SIGTERM)
    assert gateway.process.wait(60) == 0, (gateway.state / "gateway.log").read_text()
    assert not alive(below)


class Load:
    """Clients that ask without a pause, streamed and not, until the `with` block ends; every answer is judged."""

    def __init__(self, gateway: Gateway, clients: int = 6):
        self.gateway = gateway
        self.failures: list[str] = []
        self.seen: list[tuple[str, bool]] = []
        """Of every good answer: the model that gave it, and whether it was streamed."""
        self._stop = threading.Event()
        prompts = ("hello", "sleep 0.05", "sleep 0.2")
        self._threads = [
            threading.Thread(target=self._ask, args=("chunks 5" if n % 2 else prompts[n % 3], bool(n % 2)))
            for n in range(clients)
        ]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def answered_by(self, model: str) -> bool:
        """Has this model answered both kinds of request?"""
        return {(model, True), (model, False)} <= set(self.seen)

    def _ask(self, prompt: str, stream: bool) -> None:
        with self.gateway.client() as client:
            while not self._stop.is_set():
                try:
                    answer = client.post("/v1/completions", json={"model": "toy", "prompt": prompt, "stream": stream})
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code != 200 or (stream and not answer.text.endswith("data: [DONE]\n\n")):
                    self.failures.append(f"{answer.status_code} {answer.text}")
                    return
                self.seen.append((answer.headers["X-Headwater-Model"], stream))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


@pytest.fixture
def gateway(store: Store, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway over stand-in engines, ended (and checked for survivors) afterwards."""
    found = start_fake(store, tmp_path / "state")
    yield found
    stop_gateway(found)


@pytest.fixture(scope="session")
def serve_python() -> Path:
    """Python of the serving environment; the tests that need vLLM are skipped without it."""
    default = REPOSITORY / ".venv-serve" / "bin" / "python"
    python = Path(os.environ.get("HEADWATER_SERVE_PYTHON", default))
    if not python.exists():
        pytest.skip(f"no serving environment at {python}")
    return python
