"""What the gateway tells about itself at `/headwater/status`, to clients on the same machine only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["starting", "waiting", "ready", "failed", "paused", "stopping"]
"""`waiting`: its model is in order, and it waits for memory. `paused`: it gave its memory to another engine."""


class EngineStatus(BaseModel):
    """One engine."""

    model_config = ConfigDict(use_attribute_docstrings=True, protected_namespaces=())
    key: str
    """`Deployment.key` of what it serves."""
    name: str
    version: str
    model_digest: str
    role: Literal["stable", "canary", "retiring"]
    state: State
    reason: str | None = None
    """Why it is not ready, with the last lines of its log if it failed."""
    log: str | None = None
    """Path of its log."""
    starts: int = 0
    """How often it was started; more than one means that it died."""
    failures: int = 0
    """How often it failed to start, died or was killed because it hung."""
    last_failure: str | None = None
    """Why, the last time; kept when it is ready again."""
    last_failure_at: datetime | None = None
    ready_in: float | None = None
    """Seconds until it should be ready: what is left of the back-off, and a start as long as its last. None also for a
    failed one that is left alone until the record is written again, since another engine had to end for it."""
    warm: bool = False
    """Whether its interpreter had been started beforehand."""
    start_seconds: float | None = None
    """From the order to start until it answered."""
    in_flight: int = 0
    """Requests that it is answering."""


class Served(BaseModel):
    """The model that answers now."""

    model_config = ConfigDict(protected_namespaces=())
    key: str
    name: str
    version: str
    model_digest: str


class GatewayStatus(BaseModel):
    """The whole gateway."""

    model_config = ConfigDict(use_attribute_docstrings=True)
    pid: int
    serving: Served | None
    """None while nothing answers."""
    engines: list[EngineStatus]
    record_updated: datetime | None = None
    """`updated` of the deployment record that is being followed."""
    record_error: str | None = None
    """Why the deployment record could not be read; what was served goes on."""
    warm_ready: bool = False
    """A pre-started interpreter is waiting."""
    queued: int = 0
    """Requests that wait for an engine while one is exchanged for another."""

    def engine(self, digest: str, key: str | None = None) -> EngineStatus | None:
        """The newest engine for a model digest (and deployment key)."""
        found = [e for e in self.engines if e.model_digest == digest and key in (None, e.key)]
        return found[-1] if found else None
