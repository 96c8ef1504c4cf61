"""One vLLM engine process: its command, its start until it answers, and its end without survivors."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx

from serving.config import EngineConfig, GatewaySettings
from serving.engines.sweep import sweep
from serving.errors import ServingError
from serving.model_folder import ModelFolder
from serving.record import Deployment

VLLM_MODULE = "vllm.entrypoints.openai.api_server"
SUPERVISE = Path(__file__).with_name("supervise.py")
WARM_ENGINE = Path(__file__).with_name("warm_engine.py")
HEALTH_INTERVAL = 0.1
"""Seconds between two looks at an engine that is starting."""
PREIMPORTED = ("Qwen3ForCausalLM",)
"""Architectures whose description vLLM works out ahead in a warm interpreter: what Headwater trains from scratch."""


def engine_command(settings: GatewaySettings) -> list[str]:
    """What stands before the engine's arguments.

    Raises:
        ServingError: no environment with vLLM is set, or it is not there.
    """
    if settings.engine_command:
        return list(settings.engine_command)
    python = settings.engine_python
    if python is None or not python.exists():
        raise ServingError(f"the serving environment's Python ({python}) is not there; `make install` makes it")
    return [str(python), "-m", VLLM_MODULE]


def engine_arguments(deployment: Deployment, folder: Path, port: int) -> list[str]:
    """vLLM's command-line arguments for a deployment."""
    engine = deployment.engine
    options: dict[str, object] = {
        "--model": folder,
        "--host": "127.0.0.1",
        "--port": port,
        "--dtype": engine.dtype,
        "--max-model-len": engine.max_model_len,
        "--max-num-seqs": engine.max_sequences,
        "--gpu-memory-utilization": engine.gpu_memory_fraction,
        "--tensor-parallel-size": engine.tensor_parallel if engine.tensor_parallel > 1 else None,
        # Sampling defaults come from the request alone: the same request gives the same answer for every model.
        "--generation-config": "vllm",
    }
    found = [part for name, value in options.items() if value is not None for part in (name, str(value))]
    flags = ["--disable-uvicorn-access-log", *(["--enforce-eager"] if engine.eager else [])]
    return [*found, *flags, "--served-model-name", *deployment.names]


def engine_environment(engine: EngineConfig, state_folder: Path) -> dict[str, str]:
    """Variables that decide how vLLM runs. Nothing phones home, and its caches lie in the state folder."""
    threads = engine.threads or max(1, len(os.sched_getaffinity(0)) - 1 if sys.platform == "linux" else 1)
    return {
        "VLLM_CPU_KVCACHE_SPACE": str(engine.kv_cache_gib),
        "VLLM_ENABLE_V1_MULTIPROCESSING": "1" if engine.worker_process else "0",
        "VLLM_CACHE_ROOT": str(state_folder / "vllm-cache"),
        "VLLM_MAX_N_SEQUENCES": "64",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "OMP_NUM_THREADS": str(threads),
    }


@dataclass
class EngineProcess:
    """A supervised process tree that is, or is about to become, an engine."""

    process: asyncio.subprocess.Process
    log: Path
    folder: Path
    """Its working folder; see `serving.engines.sweep`."""
    api_key: str
    """What the engine wants to hear from the gateway; random, in its environment and nowhere else."""
    warm: bool
    port: int | None = None

    @classmethod
    async def spawn(
        cls, settings: GatewaySettings, engine: EngineConfig, command: Sequence[str], log: Path, *, warm: bool = False
    ) -> EngineProcess:
        """Starts `command` below the supervisor, in a session of its own, writing to `log`."""
        log.parent.mkdir(parents=True, exist_ok=True)
        folder = engines_folder(settings.state_folder) / secrets.token_hex(8)
        folder.mkdir(parents=True)
        api_key = secrets.token_urlsafe(32)
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("VLLM_", "PYTHON", "RAY_", "PREFECT_"))}
        environment = inherited | engine_environment(engine, settings.state_folder) | {"VLLM_API_KEY": api_key}
        with log.open("ab") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                str(SUPERVISE),
                str(engine.stop_grace),
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
        """Starts an interpreter that imports vLLM and waits for `order`."""
        command = [engine_command(settings)[0], str(WARM_ENGINE), *PREIMPORTED]
        return await cls.spawn(settings, EngineConfig(), command, log, warm=True)

    async def order(self, deployment: Deployment, folder: Path, port: int, settings: GatewaySettings) -> None:
        """Tells a warm interpreter what to serve."""
        assert self.process.stdin is not None
        line = {
            "argv": engine_arguments(deployment, folder, port),
            "env": engine_environment(deployment.engine, settings.state_folder),
        }
        self.port = port
        self.process.stdin.write(json.dumps(line).encode() + b"\n")
        await self.process.stdin.drain()

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self) -> httpx.AsyncClient:
        """A client for this engine; the gateway's own limits bound connections and time."""
        return httpx.AsyncClient(
            base_url=self.url,
            headers={"Authorization": f"Bearer {self.api_key}"},
            timeout=httpx.Timeout(None, connect=5.0),
            # vLLM closes a connection that was idle for 5 s; one that is given up earlier is never used at that moment.
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32, keepalive_expiry=2.0),
            trust_env=False,
        )

    async def wait_healthy(self, client: httpx.AsyncClient, model: str, timeout: float) -> None:
        """Returns when the engine has answered one completion.

        Raises:
            ServingError: it ended, or did not answer in `timeout` seconds; with the last lines of its log.
        """
        deadline = time.monotonic() + timeout
        while True:
            if not self.alive:
                raise ServingError(f"the engine ended with code {self.process.returncode}\n{self.last_lines()}")
            if time.monotonic() > deadline:
                raise ServingError(f"the engine did not answer within {timeout:.0f} s\n{self.last_lines()}")
            try:
                if (await client.get("/health", timeout=5.0)).status_code == 200:
                    break
            except httpx.TransportError:
                pass  # not listening yet
            await asyncio.sleep(HEALTH_INTERVAL)
        # Healthy is not able: one token through the whole model also makes the first user's request fast.
        probe = {"model": model, "prompt": "The", "max_tokens": 1, "temperature": 0}
        try:
            answer = await client.post("/v1/completions", json=probe, timeout=max(5.0, deadline - time.monotonic()))
        except httpx.TransportError as error:
            raise ServingError(f"the engine failed at its first completion: {error!r}\n{self.last_lines()}") from error
        if answer.status_code != 200:
            raise ServingError(f"the engine's first completion failed: {answer.text[:500]}\n{self.last_lines()}")

    async def stop(self, grace: float) -> None:
        """SIGTERM, and SIGKILL to the whole tree after `grace` seconds (by the supervisor). Returns when it is gone."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self.process.terminate()
            try:
                await asyncio.wait_for(self.process.wait(), grace + 10)
            except TimeoutError:
                self.process.send_signal(signal.SIGKILL)
                await self.process.wait()
        await asyncio.to_thread(sweep, self.folder)  # finds something only where the supervisor was killed

    def last_lines(self, count: int = 15) -> str:
        """The end of the log, without vLLM's interpreter-exit noise."""
        try:
            data = self.log.read_bytes()[-32768:]
        except FileNotFoundError:
            return ""
        lines = [line for line in data.decode(errors="replace").splitlines() if line.strip() and "leaked" not in line]
        return "\n".join(lines[-count:])


async def start_engine(
    settings: GatewaySettings, deployment: Deployment, folder: ModelFolder, log: Path, spare: EngineProcess | None
) -> EngineProcess:
    """Starts an engine, in the spare interpreter if there is one that lives. It is not healthy yet."""
    port = free_port()
    if spare is not None and spare.alive:
        await spare.order(deployment, folder.path, port, settings)
        return spare
    command = [*engine_command(settings), *engine_arguments(deployment, folder.path, port)]
    engine = await EngineProcess.spawn(settings, deployment.engine, command, log)
    engine.port = port
    return engine


def engines_folder(state_folder: Path) -> Path:
    """Where the engines' working folders lie."""
    return state_folder / "engines"


def free_port() -> int:
    """A loopback port that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
