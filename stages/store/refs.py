"""Refs: names in the store that point at artifacts, as in git. They record what is newest and what is released."""

from __future__ import annotations

from datetime import UTC, datetime

from pydantic import BaseModel, ConfigDict

from stages.store.artifact import Artifact, load
from stages.store.errors import StoreError
from stages.store.fields import FolderName, Printable, Sha256, describe
from stages.store.names import check_file_path
from stages.store.store import Store


class RefRecord(BaseModel):
    """The content of a ref, as JSON."""

    model_config = ConfigDict(frozen=True)
    folder: FolderName
    digest: Sha256
    time: Printable = ""
    """When it was set, in ISO 8601."""


def write_ref(store: Store, recipe: str, name: str, artifact: Artifact) -> None:
    """Points `refs/{recipe}/{name}` at the artifact."""
    record = RefRecord(folder=artifact.folder, digest=artifact.digest, time=datetime.now(UTC).isoformat())
    store.put(f"refs/{recipe}/{name}", record.model_dump_json().encode())


def read_ref(store: Store, recipe: str, name: str) -> Artifact | None:
    """The artifact that a ref points at; None if there is no such ref.

    Raises:
        StoreError: the ref is damaged, or the artifact that it names is missing or has another digest.
    """
    path = f"refs/{recipe}/{name}"
    try:
        record = read_record(store, path)
    except FileNotFoundError:
        return None
    artifact = load(store, record.folder)
    if artifact is None or artifact.digest != record.digest:
        raise StoreError(f"{store.where(path)} points at {record.folder}, which is missing or has changed")
    return artifact


def read_record(store: Store, path: str) -> RefRecord:
    """The content of the ref at `refs/{recipe}/{name}`.

    Raises:
        FileNotFoundError: there is no such ref.
        StoreError: it is damaged, or its name is not one.
    """
    try:
        check_file_path(path)
    except ValueError as error:
        raise StoreError(f"{store.url}: a ref has an invalid name: {error}; remove it") from error
    try:
        return RefRecord.model_validate_json(store.read(path))
    except ValueError as error:
        raise StoreError(
            f"{store.where(path)} is not a valid ref: {describe(error)}; remove it, or run its recipe again"
        ) from error


def ref_names(store: Store) -> list[str]:
    """Every ref's name in the store, `refs/{recipe}/{name}`, sorted; temporary files are none."""
    return [name for name in store.list("refs") if not name.rsplit("/", 1)[-1].startswith(".")]


def list_refs(store: Store) -> dict[str, str]:
    """Every ref (`recipe/name`) and the digest that it points at.

    Raises:
        StoreError: one is damaged.
    """
    return {name.removeprefix("refs/"): read_record(store, name).digest for name in ref_names(store)}
