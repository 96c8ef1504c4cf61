"""The deployment record: one object in the store that says which model is to be served.

The gateway follows it and whoever releases a model writes it; nothing else passes between them. It is rewritten from
the refs, which are the truth about what is released.
"""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serving.config import EngineConfig, ServingConfig
from stages.store import Artifact, Store, StoreError, canonical_json

RECORD = "deployments/record.json"
"""Name of the record in the store."""


class Deployment(BaseModel):
    """One model, as it is to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """Stable name that clients use: the recipe's."""
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """Version in the registry; clients may ask for `name@version`."""
    model_folder: str
    """The model artifact's folder in the store, `model/{fingerprint:16}`."""
    model_digest: str
    """The model artifact's digest; another one in that folder is refused."""
    path: str = "weights"
    """The Hugging Face folder inside the artifact."""
    serving: ServingConfig = ServingConfig()

    @property
    def names(self) -> tuple[str, str]:
        """Names under which the model answers."""
        return self.name, f"{self.name}@{self.version}"

    @property
    def key(self) -> str:
        """What makes two deployments need two engines: 16 hex digits. Limits can change without a new engine."""
        parts = self.model_dump(mode="json", exclude={"serving"})
        parts["engine"] = self.serving.engine.model_dump(mode="json")
        return hashlib.blake2b(canonical_json(parts), digest_size=8).hexdigest()

    @property
    def engine(self) -> EngineConfig:
        return self.serving.engine


class DeploymentRecord(BaseModel):
    """What is to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    stable: Deployment | None = None
    """Gets the traffic."""
    canary: Deployment | None = None
    """Is started and kept ready beside `stable`; promoting it costs no start-up time."""
    weight: float = Field(default=0.0, ge=0.0, le=0.0)
    """Share of the traffic for `canary`. Splitting traffic is not there yet, so anything but 0 is refused."""
    updated: datetime = Field(default_factory=lambda: datetime.now(UTC))


def read_record(store: Store) -> DeploymentRecord:
    """The record, an empty one if there is none.

    Raises:
        StoreError: it is damaged.
    """
    return find_record(store) or DeploymentRecord()


def find_record(store: Store) -> DeploymentRecord | None:
    """The record, None if there is none.

    Raises:
        StoreError: it is damaged.
    """
    try:
        data = store.read(RECORD)
    except FileNotFoundError:
        return None
    try:
        return DeploymentRecord.model_validate_json(data)
    except ValidationError as error:
        raise StoreError(f"{store.where(RECORD)} is not a deployment record: {error}") from error


def write_record(store: Store, record: DeploymentRecord) -> None:
    """Replaces the record as a whole."""
    store.put(RECORD, record.model_dump_json(indent=1).encode())


def deployment_of(
    model: Artifact, name: str, version: str | int, serving: ServingConfig | None = None, path: str = "weights"
) -> Deployment:
    """The record's entry for a model artifact."""
    return Deployment(
        name=name,
        version=str(version),
        model_folder=model.folder,
        model_digest=model.digest,
        path=path,
        serving=serving or ServingConfig(),
    )
