"""What is this made of? The graph of manifests, walked backwards from one artifact."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.tree import Tree

from stages.store import Artifact, Store, all_artifacts, by_digest, list_refs, read_ref


def trace(store: Store, start: str) -> dict[str, Any]:
    """The artifact named by a digest, `kind/digest` or ref, and everything that went in, as a tree of plain values.

    Inputs that are no artifacts (source files, question sets) are leaves with their listing's digest.

    Raises:
        StoreError: no such artifact, or an ambiguous name.
    """
    if start.removeprefix("refs/") in list_refs(store):
        recipe, _, name = start.removeprefix("refs/").rpartition("/")
        artifact = read_ref(store, recipe, name)
        assert artifact is not None
    else:
        artifact = by_digest(store, start)
    return _node(artifact, {a.digest: a for a in all_artifacts(store)})


def print_tree(console: Console, tree: dict[str, Any]) -> None:
    """The tree for a terminal."""
    console.print(_branch(tree))


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


def _branch(node: dict[str, Any]) -> Tree:
    role = f"[dim]{node['role']}:[/] " if "role" in node else ""
    counts = ", ".join(f"{key} {value:,}" for key, value in list(node.get("counts", {}).items())[:4])
    tree = Tree(f"{role}[bold]{node['kind']}[/]/{node['digest'][:12]}  {counts}")
    for item in node.get("inputs", []):
        tree.add(_branch(item))
    return tree
