"""Settings of this machine: state folder, store, ports, interpreters. Read from environment variables, never at import.

| variable | meaning | default |
|---|---|---|
| HEADWATER_HOME | state: databases and logs of services, secrets, default store | `.headwater` in the repository |
| HEADWATER_STORE | artifact store, an absolute path or any fsspec URL | `$HEADWATER_HOME/store` |
| HEADWATER_PREFECT_PORT, HEADWATER_MLFLOW_PORT, HEADWATER_GATEWAY_PORT | loopback ports | 4200, 5000, 8000 |
| HEADWATER_SERVE_PYTHON | interpreter of the environment with vLLM | `.venv-serve/bin/python` |
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from stages.store import Config, ConfigError
from stages.store.credentials import refuse_credentials

REPOSITORY = Path(__file__).resolve().parents[1]

NO_TELEMETRY = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "VLLM_NO_USAGE_STATS": "1",
}
"""No telemetry and no downloads: set for this process and for everything that it starts."""

HEARTBEAT_SECONDS = "30"
"""Heartbeat interval of a run, the shortest that Prefect accepts. flows/dead_runs.py relies on it."""


class Settings(Config):
    """One machine's settings; see the module's docstring."""

    home: Path
    """State folder of the local services."""
    store: str
    """Artifact store: absolute path or fsspec URL."""
    prefect_port: int = 4200
    """Loopback port of the Prefect server and its UI."""
    mlflow_port: int = 5000
    """Loopback port of the MLflow server and its UI."""
    gateway_port: int = 8000
    """Loopback port of the OpenAI-compatible endpoint."""
    serve_python: Path
    """Interpreter of the environment with vLLM."""

    @property
    def prefect_url(self) -> str:
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def prefect_api_url(self) -> str:
        return f"{self.prefect_url}/api"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.mlflow_port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    @property
    def api_key_file(self) -> Path:
        return self.home / "api-key"

    @property
    def credentials_folder(self) -> Path:
        """Passwords of the local services; see `infra.credentials`."""
        return self.home / "credentials"

    def environment(self) -> dict[str, str]:
        """Environment variables for every process of this installation; no secrets."""
        caches = self.home / "cache"
        return {
            **NO_TELEMETRY,
            # What PyTorch compiles is loaded as code; its own default is a folder of a name that anyone can guess, in
            # /tmp.
            "TORCHINDUCTOR_CACHE_DIR": str(caches / "torchinductor"),
            "TRITON_CACHE_DIR": str(caches / "triton"),
            "HEADWATER_HOME": str(self.home),
            "HEADWATER_STORE": self.store,
            "HEADWATER_PREFECT_PORT": str(self.prefect_port),
            "HEADWATER_MLFLOW_PORT": str(self.mlflow_port),
            "HEADWATER_GATEWAY_PORT": str(self.gateway_port),
            "HEADWATER_SERVE_PYTHON": str(self.serve_python),
            "PREFECT_API_URL": self.prefect_api_url,
            "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": HEARTBEAT_SECONDS,
            "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
            "MLFLOW_TRACKING_URI": self.mlflow_url,
            # Its default of 7 means four minutes; our callers retry or restart MLflow themselves.
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
        }


def load_settings(environ: Mapping[str, str] | None = None) -> Settings:
    """Reads the settings from environment variables.

    Raises:
        ConfigError: a port is not an integer from 1 to 65535, HEADWATER_HOME is relative, or HEADWATER_STORE has
            credentials in it.
    """
    env = os.environ if environ is None else environ
    home = Path(env.get("HEADWATER_HOME") or REPOSITORY / ".headwater")
    if not home.is_absolute():
        raise ConfigError(f"HEADWATER_HOME: {str(home)!r} is relative; set an absolute path")
    store = env.get("HEADWATER_STORE") or str(home / "store")
    refuse_credentials("HEADWATER_STORE", store)
    return Settings(
        home=home,
        store=store,
        prefect_port=_port(env, "HEADWATER_PREFECT_PORT", 4200),
        mlflow_port=_port(env, "HEADWATER_MLFLOW_PORT", 5000),
        gateway_port=_port(env, "HEADWATER_GATEWAY_PORT", 8000),
        serve_python=Path(env.get("HEADWATER_SERVE_PYTHON") or REPOSITORY / ".venv-serve" / "bin" / "python"),
    )


def apply_environment(settings: Settings) -> None:
    """Sets the variables for this process. Must precede the import of Prefect and MLflow, which read them at import."""
    os.environ.update(settings.environment())


def _port(env: Mapping[str, str], name: str, default: int) -> int:
    text = env.get(name) or str(default)
    if not text.isdigit() or not 0 < int(text) < 65536:
        raise ConfigError(f"{name}: {text!r} is not a port number (1 to 65535)")
    return int(text)
