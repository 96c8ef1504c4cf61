"""One vLLM engine process: its command, its start until it is healthy, and its end with all its descendants."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.config import EngineConfig, GatewaySettings
from serving.engines.orphans import kill_orphans
from serving.errors import ServingError
from serving.model_folder import ModelFolder
from serving.record import Deployment
from stages.ports import LOOPBACK_INTERFACE

LOG = logging.getLogger("headwater.serving")
VLLM_MODULE = "vllm.entrypoints.openai.api_server"
SUPERVISE = Path(__file__).with_name("supervise.py")
SOCKET = "engine.sock"
"""What an engine listens on, in its working folder, which only this user can enter."""
WARM_ENGINE = Path(__file__).with_name("warm_engine.py")
INTERPRETER_SITE = Path(__file__).with_name("interpreter_site")
"""Folder of the `sitecustomize` that an engine's interpreters import at their start."""
HEALTH_POLL_SECONDS = 0.1
"""Between two health checks of an engine that is starting."""
_HEALTH_TIMEOUT_SECONDS = 5.0
_KILL_TIMEOUT_SECONDS = 10.0
"""For the supervisor to kill what is left, after the engine's own grace."""
WARM_UP_REQUESTS: dict[str, dict[str, object]] = {
    "completion": {},
    "stream": {"stream": True},
    "completion with log-probabilities": {"logprobs": 1, "echo": True},
    "completion of several sequences": {"n": 2, "temperature": 1},
    "completion under a JSON schema": {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "warm_up", "schema": {"type": "object", "properties": {"a": {"enum": ["b"]}}}},
        }
    },
}
"""Requests that a new engine must answer before it is ready: each kind runs code, loads modules or compiles something
that the others do not, and a healthy server may still fail to compute."""
_NOT_INHERITED = ("VLLM_", "PYTHON", "RAY_", "PREFECT_", "MLFLOW_")
"""Prefixes of variables that an engine does not get: settings of other programs, and their passwords."""
PREINSPECTED_ARCHITECTURES = ("Qwen3ForCausalLM",)
"""Model classes that vLLM inspects ahead in a warm interpreter: what Headwater trains from scratch."""


def engine_command(settings: GatewaySettings) -> list[str]:
    """The command that an engine's arguments are appended to.

    Raises:
        ServingError: no Python with vLLM is configured, or it does not exist.
    """
    if settings.engine_command:
        return list(settings.engine_command)
    python = settings.engine_python
    if python is None or not python.exists():
        raise ServingError(f"the serving environment's Python ({python}) does not exist; `make setup` creates it")
    return [str(python), "-m", VLLM_MODULE]


def engine_arguments(deployment: Deployment, folder: Path) -> list[str]:
    """vLLM's command-line arguments for a deployment."""
    engine = deployment.engine
    options: dict[str, object] = {
        "--model": folder,
        # Not a port: vLLM asks for its key on some routes only, and every user of the machine reaches a port.
        "--uds": SOCKET,
        "--host": "127.0.0.1",
        "--dtype": engine.dtype,
        "--max-model-len": engine.max_model_len,
        "--max-num-seqs": engine.max_num_seqs,
        "--gpu-memory-utilization": engine.gpu_memory_utilization,
        "--tensor-parallel-size": engine.tensor_parallel_size if engine.tensor_parallel_size > 1 else None,
        # Sampling defaults are vLLM's, never the model folder's: one request means the same for every model.
        "--generation-config": "vllm",
    }
    given = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    flags = ["--disable-uvicorn-access-log", *(["--enforce-eager"] if engine.enforce_eager else [])]
    return [*given, *flags, "--served-model-name", *deployment.names]


def engine_environment(engine: EngineConfig, state_folder: Path) -> dict[str, str]:
    """Environment variables of vLLM: no telemetry, no downloads, caches in the state folder."""
    threads = engine.threads or max(1, len(os.sched_getaffinity(0)) - 1 if sys.platform == "linux" else 1)
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if engine.worker_process else "0",
        "VLLM_CACHE_ROOT": str(state_folder / "vllm-cache"),
        "VLLM_RPC_BASE_PATH": ".",  # sockets of its processes: in the engine's folder, not in /tmp, where they stay
        "VLLM_HOST_IP": "127.0.0.1",
        "GLOO_SOCKET_IFNAME": LOOPBACK_INTERFACE,
        "VLLM_MAX_N_SEQUENCES": "64",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
        # Without it vLLM compiles its log-probabilities at the first request that asks for some, also in eager mode:
        # 43 s during which nobody is answered, or an engine that is dead, if there is no C++ compiler.
        "TORCH_COMPILE_DISABLE": "1" if engine.enforce_eager else "0",
        "PYTHONPATH": str(INTERPRETER_SITE),
    }


@dataclass
class EngineProcess:
    """A supervised process tree that is, or is about to become, an engine."""

    process: asyncio.subprocess.Process
    log: Path
    folder: Path
    """Its working folder; see `serving.engines.orphans`."""
    api_key: str
    """Random key that the engine requires of the gateway; only in its environment."""
    warm: bool
    """The interpreter had imported vLLM before it was told what to serve."""

    @classmethod
    async def spawn(
        cls, settings: GatewaySettings, engine: EngineConfig, command: Sequence[str], log: Path, *, warm: bool = False
    ) -> EngineProcess:
        """Starts `command` under the supervisor, in a session of its own, with its output appended to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        folder = engines_folder(settings.state_folder) / secrets.token_hex(8)
        folder.mkdir(mode=0o700, parents=True)
        api_key = secrets.token_urlsafe(32)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(_NOT_INHERITED)}
        environment = inherited | engine_environment(engine, settings.state_folder) | {"VLLM_API_KEY": api_key}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SUPERVISE),
                str(engine.stop_grace_seconds),
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environment,
                cwd=folder,
                start_new_session=True,
            )
        return cls(process=process, log=log, folder=folder, api_key=api_key, warm=warm)

    @classmethod
    async def spawn_warm(cls, settings: GatewaySettings, log: Path) -> EngineProcess:
        """Starts an interpreter that imports vLLM and waits for `assign`."""
        command = [engine_command(settings)[0], str(WARM_ENGINE), *PREINSPECTED_ARCHITECTURES]
        return await cls.spawn(settings, EngineConfig(), command, log, warm=True)

    async def assign(self, deployment: Deployment, folder: Path, settings: GatewaySettings) -> None:
        """Tells a warm interpreter what to serve."""
        assert self.process.stdin is not None
        line = {
            "argv": engine_arguments(deployment, folder),
            "env": engine_environment(deployment.engine, settings.state_folder),
        }
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        await self.process.stdin.drain()

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    def client(self) -> httpx.AsyncClient:
        """A client for this engine; the gateway's own limits bound connections and time."""
        return httpx.AsyncClient(
            base_url="http://engine",
            headers={"Authorization": f"Bearer {self.api_key}"},
            timeout=httpx.Timeout(None, connect=5.0),
            transport=_SocketTransport(self.folder),
            trust_env=False,
        )

    async def wait_healthy(self, client: httpx.AsyncClient, model: str, timeout_seconds: float) -> None:
        """Waits until the engine has answered a request of each kind that clients make.

        Raises:
            ServingError: it exited, or did not answer within `timeout_seconds`; with the last lines of its log.
        """
        deadline = time.monotonic() + timeout_seconds
        while True:
            if not self.alive:
                raise ServingError(f"the engine exited with code {self.process.returncode}\n{self.last_lines()}")
            if time.monotonic() > deadline:
                raise ServingError(f"the engine did not answer within {timeout_seconds:.0f} s\n{self.last_lines()}")
            try:
                if (await client.get("/health", timeout=_HEALTH_TIMEOUT_SECONDS)).status_code == 200:
                    break
            except httpx.TransportError:
                pass  # not listening yet
            await asyncio.sleep(HEALTH_POLL_SECONDS)
        for kind, fields in WARM_UP_REQUESTS.items():
            probe = {"model": model, "prompt": "The", "max_tokens": 1, "temperature": 0, **fields}
            try:
                timeout = max(_HEALTH_TIMEOUT_SECONDS, deadline - time.monotonic())
                answer = await client.post("/v1/completions", json=probe, timeout=timeout)
            except httpx.TransportError as error:
                raise ServingError(f"the engine failed at its first {kind}: {error!r}\n{self.last_lines()}") from error
            if fields and 400 <= answer.status_code < 500:  # the model cannot do it, which is no failure
                LOG.warning("the engine of %s refuses a %s: %s", model, kind, answer.text[:500])
            elif answer.status_code != 200:
                raise ServingError(f"the engine's first {kind} failed: {answer.text[:500]}\n{self.last_lines()}")

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM; after `grace_seconds` the supervisor kills the whole tree. Returns when all processes have ended."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), grace_seconds + _KILL_TIMEOUT_SECONDS)
            except TimeoutError:
                self.process.send_signal(signal.SIGKILL)
                await self.process.wait()
        await asyncio.to_thread(kill_orphans, self.folder)  # there are some only if the supervisor was killed

    def last_lines(self, count: int = 15) -> str:
        """The last lines of the log, without Python's warnings about leaked resources at exit."""
        try:
            data = self.log.read_bytes()[-32768:]
        except FileNotFoundError:
            return ""
        lines = [line for line in data.decode(errors="replace").splitlines() if line.strip() and "leaked" not in line]
        return "\n".join(lines[-count:])


class _SocketTransport(httpx.AsyncHTTPTransport):
    """HTTP over the socket file in an engine's folder, however long that folder's path (107 bytes at most)."""

    def __init__(self, folder: Path):
        self._folder = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{self._folder}" if os.path.isdir("/proc/self/fd") else str(folder)
        # vLLM closes a connection that was idle for 5 s; one that is given up earlier is never used at that moment.
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=2.0)
        super().__init__(uds=f"{path}/{SOCKET}", limits=limits)

    async def aclose(self) -> None:
        await super().aclose()
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


async def start_engine(
    settings: GatewaySettings, deployment: Deployment, folder: ModelFolder, log: Path, warm: EngineProcess | None
) -> EngineProcess:
    """Starts an engine, in the warm interpreter if there is one that is alive. It is not healthy yet."""
    if warm is not None and warm.alive:
        await warm.assign(deployment, folder.path, settings)
        return warm
    command = [*engine_command(settings), *engine_arguments(deployment, folder.path)]
    return await EngineProcess.spawn(settings, deployment.engine, command, log)


def engines_folder(state_folder: Path) -> Path:
    """The parent of the engines' working folders."""
    return state_folder / "engines"
