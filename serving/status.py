"""What the gateway tells about itself at `/headwater/status`, to clients on the same machine only."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict

State = Literal["starting", "ready", "failed", "stopping"]


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
    """Why it failed or was restarted, with the last lines of its log."""
    log: str | None = None
    """Path of its log."""
    starts: int = 0
    """How often it was started; more than one means that it died."""
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

    def engine(self, digest: str, key: str | None = None) -> EngineStatus | None:
        """The newest engine for a model digest (and deployment key)."""
        found = [e for e in self.engines if e.model_digest == digest and key in (None, e.key)]
        return found[-1] if found else None
