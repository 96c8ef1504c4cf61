"""Lineage: an artifact with its direct and indirect inputs, from the manifests in the store."""

from __future__ import annotations

from typing import Any

from stages.store import Artifact, Store, all_artifacts, by_digest, list_refs, read_ref


def lineage_tree(store: Store, name: str) -> dict[str, Any]:
    """The artifact named by a digest, `kind/digest` or ref, with all its inputs, as a tree of plain JSON values.

    Inputs that are not artifacts (source files, question sets) are leaves with their listing's digest.

    Raises:
        StoreError: no such artifact, or an ambiguous name.
    """
    if name.removeprefix("refs/") in list_refs(store):
        recipe, _, ref = name.removeprefix("refs/").rpartition("/")
        artifact = read_ref(store, recipe, ref)
        assert artifact is not None
    else:
        artifact = by_digest(store, name)
    return _node(artifact, {a.digest: a for a in all_artifacts(store)})


def _node(artifact: Artifact, known: dict[str, Artifact]) -> dict[str, Any]:
    manifest = artifact.manifest
    inputs: list[dict[str, Any]] = []
    for role, digest in manifest.inputs.items():
        source = known.get(digest)
        inputs.append({"role": role} | (_node(source, known) if source else {"kind": "files", "digest": digest}))
    return {
        "kind": manifest.kind,
        "digest": manifest.digest,
        "fingerprint": manifest.fingerprint,
        "folder": artifact.store.where(artifact.folder),
        "run": manifest.run,
        "finished": manifest.finished.isoformat(),
        "counts": manifest.counts,
        "config": manifest.config,
        "inputs": inputs,
    }
