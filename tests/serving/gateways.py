"""A gateway over fake engines: in a thread of this process, which is cheap, or as a process of its own."""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil

from serving.__main__ import gateway_server, listen
from serving.config import GatewaySettings, LimitsConfig, ServingConfig
from serving.gateway.keys import ensure_key, read_key
from serving.record import Deployment, DeploymentRecord, deployment_of, write_record
from serving.status import EngineStatus, GatewayStatus
from stages.store import Artifact, ArtifactWriter, Store
from tests.support import alive, free_port

FAKE_ENGINE = Path(__file__).with_name("fake_engine.py")


def wait_for(condition: Callable[[], object], timeout: float = 60.0) -> None:
    """Waits until the condition holds; fails if it does not after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "the condition did not become true"
        time.sleep(0.02)


def put_model(store: Store, name: str, files: dict[str, bytes]) -> Artifact:
    """A model artifact with these files in its weights folder."""
    writer = ArtifactWriter(store, f"model/{name}", "model", 1, name, {}, {})
    for path, data in files.items():
        writer.put(f"weights/{path}", data)
    return writer.commit()


CONFIG = {"architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "max_position_embeddings": 64}
"""A `config.json` that passes the checks."""


def fake_model(store: Store, name: str, extra: dict[str, bytes] | None = None, **behaviour: object) -> Artifact:
    """A model that only the fake engine can serve; `behaviour` controls that engine (see fake_engine.py)."""
    weights = safetensors(name, engine=json.dumps(behaviour))
    files = {"config.json": json.dumps(CONFIG).encode(), "model.safetensors": weights}
    return put_model(store, name, files | (extra or {}))


def safetensors(text: str = "", **metadata: str) -> bytes:
    """A SafeTensors file without tensors."""
    header = json.dumps({"__metadata__": {"text": text, **metadata}}).encode()
    return len(header).to_bytes(8, "little") + header


@dataclass
class Gateway:
    """A gateway, in this process or in another one."""

    url: str
    state: Path
    store: Store
    pid: int
    """Of the process that runs it."""
    _count: Iterator[int] = field(default_factory=itertools.count)

    def __post_init__(self) -> None:
        self.status_client = self.client(limits=httpx.Limits(max_keepalive_connections=0))

    @property
    def key(self) -> str:
        return read_key(self.state / "api-key")

    @property
    def headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}

    def client(self, timeout: float = 60.0, key: bool = True, **options: Any) -> httpx.Client:
        """A client with the key or without. (No TLS verification: to load the certificates takes 20 ms each time.)"""
        headers = self.headers if key else {}
        return httpx.Client(base_url=self.url, headers=headers, timeout=timeout, verify=False, **options)

    def status(self) -> GatewayStatus:
        """Like `serving.client.gateway_status`, but cheap enough for polling."""
        return GatewayStatus.model_validate_json(self.status_client.get("/headwater/status").raise_for_status().content)

    def engine(self) -> EngineStatus:
        """The first engine of the gateway's status."""
        return self.status().engines[0]

    def engine_processes(self) -> list[psutil.Process]:
        """The gateway's descendants in its engines' working folders; see `serving.engines.orphans`."""
        folder, found = os.path.realpath(self.state / "engines"), []
        for process in psutil.Process(self.pid).children(recursive=True):
            try:
                if process.cwd().startswith(folder + os.sep):
                    found.append(process)
            except psutil.Error:  # it has just ended
                continue
        return found

    def engine_pid(self) -> int:
        """Pid of the engine itself, which the supervisor runs."""
        return next(p.pid for p in self.engine_processes() if "fake_engine.py" in p.cmdline()[1])

    def logs(self) -> str:
        return "".join(path.read_text() for path in (self.state / "logs").glob("engine-*.log"))

    def model(self, extra: dict[str, bytes] | None = None, **behaviour: object) -> Artifact:
        """A model that this gateway has not served yet, so that its engine's counts start at 0."""
        return fake_model(self.store, f"m{next(self._count)}", extra, **behaviour)

    def serve(self, model: Artifact, version: int, serving: ServingConfig | None = None) -> Deployment:
        """Writes the record and waits until the model is served."""
        entry = deployment_of(model, "toy", version, serving)
        self.follow(DeploymentRecord(stable=entry))
        wait_for(lambda: (served := self.status().serving) and served.key == entry.key)
        return entry

    def follow(self, record: DeploymentRecord) -> None:
        """Writes the record and waits until the gateway has read it."""
        write_record(self.store, record)
        wait_for(lambda: self.status().record_updated == record.updated)

    @contextmanager
    def limits(self, entry: Deployment, **limits: object) -> Iterator[None]:
        """The same engine under other limits, until the `with` block ends."""
        serving = entry.serving.model_copy(update={"limits": LimitsConfig.model_validate(limits)})
        self.follow(DeploymentRecord(stable=entry.model_copy(update={"serving": serving})))
        try:
            yield
        finally:
            self.follow(DeploymentRecord(stable=entry))

    def clear(self) -> None:
        """Ends all engines; fails if one of their processes is left."""
        below = self.engine_processes()
        self.follow(DeploymentRecord())
        wait_for(lambda: not self.status().engines)
        assert not alive(below)


@contextmanager
def gateway_thread(store: Store, state: Path, **settings: object) -> Iterator[Gateway]:
    """A gateway in a thread: the real app and server on a real socket, with engines that are real processes.

    It allows two engines, whatever memory this machine has, unless `two_engines_gib` is set.
    """
    found = GatewaySettings.model_validate(
        {
            "store": store.url,
            "state_folder": state,
            "poll_seconds": 0.02,
            "drain_timeout_seconds": 10.0,
            "two_engines_gib": 0.0,
            "engine_command": (sys.executable, str(FAKE_ENGINE)),
            **settings,
        }
    )
    key, _ = ensure_key(found.keys)
    server = gateway_server(found, key)
    listener = listen("127.0.0.1", 0)
    thread = threading.Thread(target=server.run, args=([listener],), name="gateway", daemon=True)
    gateway = Gateway(f"http://127.0.0.1:{listener.getsockname()[1]}", state, store, os.getpid())
    thread.start()
    try:
        wait_for(lambda: server.started or not thread.is_alive())
        assert thread.is_alive(), "the gateway did not start"
        yield gateway
    finally:
        below = gateway.engine_processes()
        server.should_exit = True
        thread.join(60)
        listener.close()
    assert not thread.is_alive() and not alive(below)


@dataclass
class GatewayProcess(Gateway):
    """A gateway in a process of its own, for tests of its start, its end, and being killed."""

    process: subprocess.Popen[bytes] = field(kw_only=True)

    def stop(self) -> None:
        """SIGTERM; fails if a process of its engines is left afterwards."""
        if self.process.poll() is not None:
            return
        below = self.engine_processes()
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(60) == 0, (self.state / "gateway.log").read_text()
        assert not alive(below)


@contextmanager
def gateway_process(store: Store, state: Path, *options: str) -> Iterator[GatewayProcess]:
    """`python -m serving`, from when it listens to the end of the `with` block, where it must exit cleanly."""
    port = free_port()
    command = [sys.executable, "-m", "serving", "--store", store.url, "--state-folder", str(state)]
    command += ["--port", str(port), "--poll-seconds", "0.1", *options]
    ensure_key(state / "api-key")
    with (state / "gateway.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log)
    gateway = GatewayProcess(f"http://127.0.0.1:{port}", state, store, process.pid, process=process)

    def listening() -> bool:
        assert process.poll() is None, (state / "gateway.log").read_text()
        try:
            return gateway.status_client.get("/health").status_code in (200, 503)
        except httpx.TransportError:
            return False

    try:
        wait_for(listening)
        yield gateway
    finally:
        gateway.stop()


def fake_gateway_process(store: Store, state: Path, *options: str) -> AbstractContextManager[GatewayProcess]:
    """A gateway process over fake engines, two of them at once, whatever memory this machine has."""
    engine = ("--engine-command", sys.executable, str(FAKE_ENGINE))
    return gateway_process(store, state, "--drain-timeout-seconds", "10", "--two-engines-gib", "0", *options, *engine)


def ask(client: httpx.Client, prompt: str, **fields: object) -> httpx.Response:
    return client.post("/v1/completions", json={"model": "toy", "prompt": prompt, **fields})


def unavailable(answer: httpx.Response) -> bool:
    """A 503 as OpenAI clients understand it, with a sensible Retry-After."""
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"} and error["message"]
    assert (error["type"], error["code"]) == ("server_error", "model_not_ready")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    return answer.status_code == 503


class Load:
    """Clients that send requests without a pause, streamed and not, until the end of the `with` block."""

    def __init__(self, gateway: Gateway, clients: int = 6):
        self.gateway = gateway
        self.failures: list[str] = []
        self.seen: list[tuple[str, bool]] = []
        """For every successful answer: the model that gave it, and whether it was streamed."""
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
        """Whether this model has answered both kinds of request."""
        return {(model, True), (model, False)} <= set(self.seen)

    def _ask(self, prompt: str, stream: bool) -> None:
        with self.gateway.client() as client:
            while not self._stop.is_set():
                try:
                    answer = ask(client, prompt, stream=stream)
                except httpx.HTTPError as error:
                    self.failures.append(repr(error))
                    return
                if answer.status_code != 200 or (stream and not answer.text.endswith("data: [DONE]\n\n")):
                    self.failures.append(f"{answer.status_code} {answer.text}")
                    return
                self.seen.append((answer.headers["X-Headwater-Model"], stream))
