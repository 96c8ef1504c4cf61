"""What the processes of one training run are told, and what they leave for whoever started them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stages.artifact import EventLog, Store
from stages.training.config import TrainingConfig

OUTCOME = "outcome.json"

BACKEND = "cpu:gloo,cuda:nccl"
"""On GPUs tensors go over NCCL; control and checkpoints, on the host, over gloo."""

TIMEOUT_SECONDS = 600
"""How long a rank waits for another in a collective."""


@dataclass(frozen=True)
class Run:
    """One run. Plain values: it travels to workers as JSON."""

    store: str
    """URL of the store, on files that every worker sees."""
    folder: str
    """The run's folder in the store: events, checkpoints, stop file, outcome."""
    tokens: str
    """Local folder of the tokens artifact."""
    tokens_digest: str
    config: dict[str, Any]
    weights: str
    """File that rank 0 writes the finished weights to (SafeTensors, fp32, Hugging Face's names)."""
    history: str
    """File that rank 0 writes the loss of every step to (Parquet)."""
    submitted: float = 0.0
    """Time of day at which the workers were asked for; start-up is measured from here."""

    @property
    def path(self) -> Path:
        """The run's folder as a local path."""
        return Store(self.store).local_path(self.folder)

    @property
    def events(self) -> EventLog:
        return EventLog(Store(self.store), self.folder)

    def settings(self) -> TrainingConfig:
        return TrainingConfig.model_validate(self.config)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def write_outcome(self, **fields: Any) -> None:
        """Leaves the outcome where the driver finds it."""
        Store(self.store).put(f"{self.folder}/{OUTCOME}", json.dumps(fields).encode())

    def outcome(self) -> dict[str, Any] | None:
        """What the workers left; None if they are not done."""
        path = self.path / OUTCOME
        return json.loads(path.read_text()) if path.exists() else None
