"""Refs: names in the store that point at artifacts, as in git. They record what is newest and what is released."""

from __future__ import annotations

import json
from datetime import UTC, datetime

from stages.store.artifact import Artifact, load
from stages.store.errors import StoreError
from stages.store.store import Store


def write_ref(store: Store, recipe: str, name: str, artifact: Artifact) -> None:
    """Points `refs/{recipe}/{name}` at the artifact."""
    record = {"folder": artifact.folder, "digest": artifact.digest, "time": datetime.now(UTC).isoformat()}
    store.put(f"refs/{recipe}/{name}", json.dumps(record).encode())


def read_ref(store: Store, recipe: str, name: str) -> Artifact | None:
    """The artifact that a ref points at; None if there is no such ref.

    Raises:
        StoreError: the artifact that the ref names is missing or has another digest.
    """
    path = f"refs/{recipe}/{name}"
    if not store.exists(path):
        return None
    record = store.read_json(path)
    artifact = load(store, record["folder"])
    if artifact is None or artifact.digest != record["digest"]:
        raise StoreError(f"{store.where(path)} points at {record['folder']}, which is missing or has changed")
    return artifact


def list_refs(store: Store) -> dict[str, str]:
    """Every ref (`recipe/name`) and the digest that it points at."""
    return {
        name.removeprefix("refs/"): store.read_json(name)["digest"]
        for name in store.list("refs")
        if not name.rsplit("/", 1)[-1].startswith(".")
    }
