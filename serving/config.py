"""Settings of serving: for one model (part of the deployment record), and for the gateway process."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from stages.store import Config, runtime_field


class EngineConfig(Config):
    """How vLLM loads and runs one model. Most fields are vLLM's own arguments or environment variables."""

    max_model_len: int | None = Field(default=None, ge=16)
    """Maximum length of prompt and completion together, in tokens; null: the model's own limit."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Number format of weights and activations; `auto`: the checkpoint's."""
    kv_cache_gib: int = runtime_field(1, ge=1)
    """Memory for the key-value cache on a CPU, in GiB. On GPUs `gpu_memory_utilization` counts instead."""
    gpu_memory_utilization: float | None = runtime_field(None, gt=0, lt=1)
    """Fraction of a GPU's memory that vLLM allocates; null: vLLM's default."""
    tensor_parallel_size: int = runtime_field(1, ge=1)
    """Number of GPUs that one engine shards the model over."""
    enforce_eager: bool = runtime_field(True)
    """Run without torch.compile and CUDA graphs: starts about 15 s faster. Disable for throughput on GPUs."""
    max_num_seqs: int | None = runtime_field(None, ge=1)
    """Maximum number of sequences in one batch; null: vLLM's default."""
    threads: int | None = runtime_field(None, ge=1)
    """Compute threads of the engine on a CPU; null: all cores but one, which is left to the HTTP server."""
    worker_process: bool = runtime_field(False)
    """Run the model in a third process on a CPU, which pins threads to cores, starts about 8 s later, and needs 1 GiB
    more memory; otherwise it runs in the engine's core process."""
    start_timeout_seconds: float = runtime_field(300.0, gt=0)
    """An engine that is not healthy after this time has failed."""
    stop_grace_seconds: float = runtime_field(10.0, gt=0)
    """Between SIGTERM and SIGKILL."""
    hang_timeout_seconds: float = runtime_field(120.0, gt=0)
    """A ready engine that shows no progress for this long is killed and restarted. A working engine is silent for at
    most one step, 2,048 tokens of prompt: about 20 s for a model of 1B parameters on a slow two-core machine, in
    proportion to parameters for others. Raise it for larger models on a CPU."""


class JsonSchemaLimits(Config):
    """Limits on the JSON schemas of one request (`response_format` and the parameters of `tools`), all together."""

    max_bytes: int = runtime_field(1 << 16, ge=256)
    """Size as JSON."""
    max_depth: int = runtime_field(32, ge=1)
    """Levels of nested arrays and objects, counted in the schema's own JSON."""
    max_nodes: int = runtime_field(2000, ge=1)
    """Values, arrays and objects."""
    max_enum_values: int = runtime_field(500, ge=1)
    """Values of `enum`."""
    max_string_length: int = runtime_field(2048, ge=1)
    """Characters of one string or property name."""
    max_pattern_length: int = runtime_field(256, ge=1)
    """Characters of one regular expression."""
    max_repetitions: int = runtime_field(256, ge=1)
    """Sum of all counts: `maxLength`, `maxItems` and others, and `{n}` in patterns. The compiler's time grows with it:
    on a slow core about 10 s for strings of 256 characters and a vocabulary of 32,000 tokens."""


class LimitsConfig(Config):
    """Limits on what clients may ask of the endpoint."""

    max_concurrent: int = runtime_field(32, ge=1)
    """Requests in flight at once; further ones are answered with 429."""
    requests_per_minute: int | None = runtime_field(None, ge=1)
    """Average rate, with bursts of up to a tenth of it; null: no limit. Further requests are answered with 429."""
    max_body_bytes: int = runtime_field(1 << 20, ge=1024)
    """Maximum size of a request body; larger ones are answered with 413."""
    request_timeout_seconds: float = runtime_field(600.0, gt=0)
    """From a request's arrival to the last byte of its answer; then 504."""
    queue_timeout_seconds: float = runtime_field(180.0, ge=0)
    """How long a request may be queued while one engine is exchanged for another (where both do not fit into memory);
    then it is answered with 503. Queued requests are in flight, so `max_concurrent` bounds their number."""
    body_timeout_seconds: float = runtime_field(30.0, gt=0)
    """How long a client may take to send its body; then 408."""
    max_sequences: int = runtime_field(64, ge=1, le=64)
    """Maximum number of sequences in one request: prompts times `n`."""
    max_logprobs: int = runtime_field(20, ge=0, le=20)
    """Maximum number of alternatives per position in one request; 20 is vLLM's own limit."""
    json_schema: JsonSchemaLimits = JsonSchemaLimits()
    """What the engine may be asked to compile for structured output."""


class ServingConfig(Config):
    """How a model is served. Part of the deployment record, so that the gateway applies it together with the model."""

    engine: EngineConfig = EngineConfig()
    """The engine that runs the model."""
    limits: LimitsConfig = LimitsConfig()
    """What clients may ask."""


RENAMED_SETTINGS = {
    "engine": {
        "gpu_memory_fraction": "gpu_memory_utilization",
        "tensor_parallel": "tensor_parallel_size",
        "eager": "enforce_eager",
        "max_sequences": "max_num_seqs",
        "start_timeout": "start_timeout_seconds",
        "stop_grace": "stop_grace_seconds",
        "hang_timeout": "hang_timeout_seconds",
    },
    "limits": {
        "request_timeout": "request_timeout_seconds",
        "queue_timeout": "queue_timeout_seconds",
        "body_timeout": "body_timeout_seconds",
    },
}
"""Old to new names of settings, by group: for recipes and deployment records of earlier releases."""


class GatewaySettings(Config):
    """Settings of the gateway process."""

    store: str
    """Absolute path or URL of the artifact store whose `deployments/record.json` is followed."""
    state_folder: Path
    """Local folder for the lock, vLLM's caches and, by default, API key and logs."""
    host: str = runtime_field("127.0.0.1")
    """Address to listen on. Put a TLS proxy in front before this is anything but loopback."""
    port: int = runtime_field(8000, ge=1, le=65535)
    """Port of the endpoint."""
    max_connections: int = runtime_field(1000, ge=16)
    """Open connections of clients; fewer where the limit of open files is low. Beyond it the connection that has waited
    longest without a request is closed, and if none is waiting the new one."""
    header_timeout_seconds: float = runtime_field(10.0, gt=0)
    """How long a client may take to send a request's headers, from the opening of its connection or the end of the
    answer before; then the connection is closed."""
    write_timeout_seconds: float = runtime_field(30.0, gt=0)
    """A connection whose client reads nothing of its answer for this long is closed."""
    key_file: Path | None = runtime_field(None)
    """File with the API key (mode 600); null: `api-key` in the state folder."""
    log_folder: Path | None = runtime_field(None)
    """Folder for the engines' logs; null: `logs` in the state folder."""
    engine_python: Path | None = runtime_field(None)
    """Python of the environment with vLLM. Required unless `engine_command` is given."""
    engine_command: tuple[str, ...] | None = runtime_field(None)
    """Command that the engine's arguments are appended to, instead of `{engine_python} -m {vLLM's OpenAI server}`."""
    warm: bool = runtime_field(False)
    """Keep one interpreter that has already imported vLLM (about 0.6 GiB), so that the next engine starts faster."""
    poll_seconds: float | None = runtime_field(None, gt=0)
    """Time between two reads of the deployment record; null: 0.5 s on local files, 2 s on an object store (two requests
    each time: 86,400 a day)."""
    drain_timeout_seconds: float = runtime_field(60.0, ge=0)
    """How long a replaced engine may take to finish its requests in flight."""
    two_engines_gib: float = runtime_field(12.0, ge=0)
    """Available memory, in GiB, from which a second engine is started beside the running one. With less, the old one
    ends first and requests are queued until the new one is ready; a canary waits until it is promoted."""

    @property
    def keys(self) -> Path:
        """Path of the API key's file."""
        return self.key_file or self.state_folder / "api-key"

    @property
    def logs(self) -> Path:
        """Folder of the engines' logs."""
        return self.log_folder or self.state_folder / "logs"
