"""The answer of `/headwater/status`, which only clients with the API key on the gateway's machine get."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["starting", "waiting", "ready", "failed", "paused", "stopping"]
"""`waiting`: its model was verified, and it waits for memory. `paused`: its memory was needed for another engine."""


class EngineStatus(BaseModel):
    """One engine."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())
    key: str
    """`Deployment.key` of its deployment."""
    name: str
    version: str
    model_digest: str
    role: Literal["stable", "canary", "retiring"]
    state: State
    reason: str | None = None
    """Why it is not ready; with the last lines of its log if it failed."""
    log: str | None = None
    """Path of its log."""
    starts: int = 0
    """Number of starts, restarts included."""
    failures: int = 0
    """How often it failed to start, died, or was killed because it hung."""
    last_failure: str | None = None
    """Reason of the last failure; stays when it is ready again."""
    last_failure_at: datetime | None = None
    ready_in: float | None = None
    """Estimated seconds until it is ready: the rest of its back-off and the duration of its last start. None also for a
    failed one that is not retried until the record is written again, because another engine was paused for it."""
    warm: bool = False
    """It was started in an interpreter that had already imported vLLM."""
    start_seconds: float | None = None
    """Duration of its last start, until it had answered a completion."""
    in_flight: int = 0
    """Requests that it is answering."""


class Served(BaseModel):
    """The model that is served."""

    model_config = ConfigDict(protected_namespaces=())
    key: str
    name: str
    version: str
    model_digest: str


class GatewayStatus(BaseModel):
    """The gateway and its engines."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    pid: int
    serving: Served | None
    """None while no engine is ready."""
    engines: list[EngineStatus]
    record_updated: datetime | None = None
    """`updated` of the deployment record that was read last."""
    record_error: str | None = None
    """Why the deployment record cannot be read; the last deployment stays in place."""
    warm_ready: bool = False
    """A pre-started interpreter is available."""
    queued: int = 0
    """Requests that wait for an engine while one is exchanged for another."""

    def engine(self, digest: str, key: str | None = None) -> EngineStatus | None:
        """The newest engine of a model digest (and deployment key); None if there is none."""
        found = [e for e in self.engines if e.model_digest == digest and key in (None, e.key)]
        return found[-1] if found else None
