"""Settings of serving: how one model is served (part of the deployment record), and how the gateway runs."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.store import Config, runtime_field


class EngineConfig(Config):
    """How vLLM loads and runs one model. Every field becomes one command-line argument or environment variable."""

    max_model_len: int | None = Field(default=None, ge=16)
    """Longest prompt and answer together, in tokens; the model's own limit when absent."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of weights and activations; `auto` takes the checkpoint's."""
    kv_cache_gib: int = runtime_field(1, ge=1)
    """Memory for the key-value cache on a CPU, in GiB. On GPUs `gpu_memory_fraction` counts instead."""
    gpu_memory_fraction: float | None = runtime_field(None, gt=0, lt=1)
    """Share of a GPU's memory that vLLM takes; vLLM's default when absent."""
    tensor_parallel: int = runtime_field(1, ge=1)
    """Number of GPUs that one engine spreads the model over."""
    eager: bool = runtime_field(True)
    """Run without compiling: starts faster by about 15 s. Switch off for throughput on GPUs."""
    max_sequences: int | None = runtime_field(None, ge=1)
    """Sequences computed at once; vLLM's default when absent."""
    threads: int | None = runtime_field(None, ge=1)
    """Compute threads of the engine on a CPU; all cores but one when absent (one is left to the HTTP side)."""
    worker_process: bool = runtime_field(False)
    """Let vLLM put the model into a third process on a CPU. It pins threads to cores, starts about 8 s later, and takes
    1 GiB more; without it the model runs in the engine's core process."""
    start_timeout: float = runtime_field(300.0, gt=0)
    """Seconds until an engine that is not healthy counts as failed."""
    stop_grace: float = runtime_field(10.0, gt=0)
    """Seconds between SIGTERM and SIGKILL."""
    hang_timeout: float = runtime_field(120.0, gt=0)
    """Seconds without any sign of life after which a serving engine is killed and started again. The longest silence of
    an engine that works is one step, 2,048 tokens of prompt: about 20 s on a slow two-core machine for a model of 1B
    parameters, in proportion for others. Raise it for larger models on a CPU."""


class LimitsConfig(Config):
    """What one client may ask of the endpoint."""

    max_concurrent: int = runtime_field(32, ge=1)
    """Requests in flight at once; more are answered with 429."""
    requests_per_minute: int | None = runtime_field(None, ge=1)
    """Average rate per key, with bursts up to a tenth of it; no limit when absent."""
    max_body_bytes: int = runtime_field(1 << 20, ge=1024)
    """Size of a request body; larger ones are answered with 413."""
    request_timeout: float = runtime_field(600.0, gt=0)
    """Seconds from a request's arrival to its last byte."""
    queue_timeout: float = runtime_field(180.0, ge=0)
    """Seconds that a request may wait while one engine is exchanged for another, which happens where memory does not
    allow both at once; then it is answered with 503. What waits counts as in flight, so `max_concurrent` bounds it."""
    body_timeout: float = runtime_field(30.0, gt=0)
    """Seconds a client may take to send its body."""
    max_sequences: int = runtime_field(64, ge=1, le=64)
    """Sequences that one request may ask for: prompts times `n`."""
    max_logprobs: int = runtime_field(20, ge=0, le=20)
    """Alternatives per position that one request may ask for; 20 is vLLM's own limit."""


class ServingConfig(Config):
    """How a model is served. Goes into the deployment record, so the gateway takes it over with the model."""

    engine: EngineConfig = EngineConfig()
    """The engine that runs the model."""
    limits: LimitsConfig = LimitsConfig()
    """What one client may ask."""


class GatewaySettings(Config):
    """How the gateway process runs."""

    store: str
    """Absolute path or URL of the artifact store whose `deployments/record.json` is followed."""
    state_folder: Path
    """Local folder for the lock, vLLM's caches and, unless set apart, key and logs."""
    host: str = runtime_field("127.0.0.1")
    """Address to listen on. Put TLS in front before this is anything but loopback."""
    port: int = runtime_field(8000, ge=1, le=65535)
    """Port of the endpoint."""
    key_file: Path | None = runtime_field(None)
    """File that holds the API key (mode 600); `api-key` in the state folder when absent."""
    log_folder: Path | None = runtime_field(None)
    """Folder for the engines' logs; `logs` in the state folder when absent."""
    engine_python: Path | None = runtime_field(None)
    """Python of the environment that holds vLLM. Needed unless `engine_command` is given."""
    engine_command: tuple[str, ...] | None = runtime_field(None)
    """What stands before the engine's arguments, instead of `{engine_python} -m vllm.entrypoints.openai.api_server`."""
    warm: bool = runtime_field(False)
    """Keep one engine interpreter that has already imported vLLM (about 0.6 GiB), so that a new model is up sooner."""
    poll_seconds: float | None = runtime_field(None, gt=0)
    """How often the deployment record is read: every 0.5 s from local files, every 2 s from an object store when
    absent (two requests each time: 86,400 a day)."""
    drain_timeout: float = runtime_field(60.0, ge=0)
    """Seconds that a replaced engine may take to finish what it is answering."""
    two_engines_gib: float = runtime_field(12.0, ge=0)
    """GiB of available memory from which a second engine is started beside the one that serves. With less the old one
    ends first, and requests wait until the new one is ready; a canary waits until it is promoted."""

    @property
    def keys(self) -> Path:
        """Where the API key lies."""
        return self.key_file or self.state_folder / "api-key"

    @property
    def logs(self) -> Path:
        """Where the engines' logs lie."""
        return self.log_folder or self.state_folder / "logs"
