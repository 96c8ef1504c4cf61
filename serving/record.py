"""The deployment record: one object in the store that says which model is to be served.

A release writes it, and the gateway polls it; they have no other connection. It is derived from the
refs, which are the source of truth about what is released.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from serving.config import RENAMED_SETTINGS, EngineConfig, ServingConfig
from stages.store import Artifact, Store, StoreError, canonical_json
from stages.store.fields import FilePath, FolderName, Sha256, describe

RECORD = "deployments/record.json"
"""Name of the record in the store."""


class Deployment(BaseModel):
    """One model and how it is to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True, protected_namespaces=())
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """Name that clients use: the recipe's."""
    version: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]*$")
    """Version in the registry; clients may request `name@version`."""
    model_folder: FolderName
    """The model artifact's folder in the store, `model/{fingerprint:16}`."""
    model_digest: Sha256
    """The model artifact's digest; any other artifact in that folder is refused."""
    path: FilePath = "weights"
    """The Hugging Face folder within the artifact."""
    serving: ServingConfig = ServingConfig()

    @property
    def names(self) -> tuple[str, str]:
        """Model names that clients may request."""
        return self.name, f"{self.name}@{self.version}"

    @property
    def key(self) -> str:
        """Identity of the engine, 16 hex digits. Limits are not part of it: they change without a restart."""
        parts = self.model_dump(mode="json", exclude={"serving"})
        parts["engine"] = self.serving.engine.model_dump(mode="json")
        return hashlib.blake2b(canonical_json(parts), digest_size=8).hexdigest()

    @property
    def engine(self) -> EngineConfig:
        """Settings of the engine."""
        return self.serving.engine


class DeploymentRecord(BaseModel):
    """Which models are to be served."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)
    stable: Deployment | None = None
    """Gets the traffic."""
    canary: Deployment | None = None
    """Its engine is started and kept ready beside that of `stable`, so that promoting it takes no start-up time."""
    weight: float = Field(default=0.0, ge=0.0, le=0.0)
    """Fraction of the traffic for `canary`. Splitting traffic is not implemented, so only 0 is accepted."""
    updated: datetime = Field(default_factory=lambda: datetime.now(UTC))


def read_record(store: Store) -> DeploymentRecord:
    """The record; an empty one if the store has none.

    Raises:
        StoreError: it is invalid.
    """
    return find_record(store) or DeploymentRecord()


def find_record(store: Store) -> DeploymentRecord | None:
    """The record; None if the store has none.

    Raises:
        StoreError: it is invalid.
    """
    try:
        data = store.read(RECORD)
    except FileNotFoundError:
        return None
    try:
        return DeploymentRecord.model_validate_json(json.dumps(_with_new_names(json.loads(data))))
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        raise StoreError(f"{store.where(RECORD)} is not a valid deployment record: {describe(error)}") from error


def write_record(store: Store, record: DeploymentRecord) -> None:
    """Replaces the whole record."""
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


def _with_new_names(record: Any) -> Any:
    """A record of an earlier release in today's names; anything else as it is."""
    for deployment in ("stable", "canary"):
        for group, renamed in RENAMED_SETTINGS.items():
            try:
                settings = record[deployment]["serving"][group]
                for old, new in renamed.items():
                    if old in settings:
                        settings[new] = settings.pop(old)
            except (TypeError, KeyError, AttributeError):  # absent, or invalid, which pydantic reports
                continue
    return record
