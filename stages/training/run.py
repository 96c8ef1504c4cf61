"""A training run as its processes share it: what each is given, and what they write for whoever started them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from stages.store import Artifact, EventLog, FileEntry, Store, StoreError, canonical, load
from stages.store.artifact import scratch_folder
from stages.store.hashing import sha256_file
from stages.store.manifest import MANIFEST
from stages.training.config import TrainingConfig

OUTCOME = "outcome.json"

CONFIG, GENERATION_CONFIG = "config.json", "generation_config.json"
HISTORY, VALIDATIONS = "loss.parquet", "validation.parquet"
"""Files of a finished run, beside the weights in its last checkpoint."""


@dataclass(frozen=True)
class Run:
    """One run. Plain values: it travels to workers as JSON."""

    url: str
    """URL of the store, which every worker reaches."""
    folder: str
    """The run's folder in the store: events, checkpoints, stop file, outcome, and its files."""
    tokens_url: str
    """URL of the store that holds the tokens artifact."""
    tokens: str
    """Folder of the tokens artifact in it."""
    tokens_digest: str
    config: dict[str, Any]
    submitted: float = 0.0
    """Time of day at which the workers were asked for; start-up is measured from here."""
    base_url: str = ""
    """URL of the store that holds the model that the run goes on from; empty: it starts from scratch."""
    base: str = ""
    """Folder of that model's artifact in it."""
    base_digest: str = ""

    @cached_property
    def store(self) -> Store:
        return Store(self.url)

    @cached_property
    def events(self) -> EventLog:
        return EventLog(self.store, self.folder, patient=True)

    @property
    def where(self) -> str:
        """The run's folder as a path or URL, for messages."""
        return self.store.where(self.folder)

    @property
    def checkpoints(self) -> str:
        """The folder of its checkpoints in the store."""
        return f"{self.folder}/checkpoints"

    @cached_property
    def settings(self) -> TrainingConfig:
        return TrainingConfig.model_validate(self.config)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    def identity(self) -> dict[str, Any]:
        """What decides the resulting model: a checkpoint with another identity belongs to another run."""
        base = {"base": self.base_digest} if self.base else {}
        return {"tokens": self.tokens_digest, "config": canonical(self.settings)} | base

    def tokens_folder(self) -> Path:
        """The tokens on this machine; from an object store they are fetched once a machine."""
        return _load(self.tokens_url, self.tokens, self.tokens_digest, "tokens").local()

    @cached_property
    def base_artifact(self) -> Artifact | None:
        """The model that the run goes on from."""
        return _load(self.base_url, self.base, self.base_digest, "base") if self.base else None

    def publish_file(self, name: str, write: Callable[[Path], None]) -> dict[str, Any]:
        """Writes one of the run's files through a local path, and puts it under its final name.

        Returns its entry for the manifest, as JSON.

        Raises:
            StoreError: another process has finished the run.
        """
        if self.store.exists(f"{self.folder}/{MANIFEST}"):
            raise StoreError(f"training: another process has finished the run in {self.where}")
        beside = scratch_folder(self.store, self.folder)  # the next attempt clears it if this one is killed
        beside.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="headwater-", dir=beside) as folder:
            local = Path(folder) / name
            write(local)
            entry = FileEntry(path=name, bytes=local.stat().st_size, sha256=sha256_file(local))
            self.store.put_file(local, f"{self.folder}/{name}")
        return entry.model_dump(mode="json")

    def write_outcome(self, **fields: Any) -> None:
        """Writes the outcome where the driver finds it."""
        self.events.flush()
        self.store.put(f"{self.folder}/{OUTCOME}", json.dumps(fields).encode())

    def clear_outcome(self) -> None:
        """Removes an earlier attempt's outcome."""
        self.store.remove(f"{self.folder}/{OUTCOME}")

    def outcome(self) -> dict[str, Any] | None:
        """What the workers wrote; None if they are not done."""
        try:
            return self.store.read_json(f"{self.folder}/{OUTCOME}")
        except FileNotFoundError:
            return None


def _load(url: str, folder: str, digest: str, what: str) -> Artifact:
    store = Store(url)
    artifact = load(store, folder)
    if artifact is None or artifact.digest != digest:
        raise StoreError(f"training: the {what} in {store.where(folder)} are gone, or have changed; start again")
    return artifact
