"""`headwater lineage`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from flows.cli.console import Json, load, out, print_json

if TYPE_CHECKING:
    from rich.tree import Tree


def lineage(
    artifact: Annotated[str, typer.Argument(help="Digest, kind/digest, or ref such as biomed/champion.")],
    as_json: Json = False,
) -> None:
    """Show an artifact's inputs, back to the source files."""
    from stages.provenance.lineage import lineage_tree
    from stages.store import Store

    tree = lineage_tree(Store(load().store), artifact)
    if as_json:
        print_json(tree)
    else:
        out.print(_branch(tree))


def _branch(node: dict[str, Any]) -> Tree:
    from rich.tree import Tree

    role = f"[dim]{node['role']}:[/] " if "role" in node else ""
    counts = ", ".join(f"{key} {value:,}" for key, value in list(node.get("counts", {}).items())[:4])
    tree = Tree(f"{role}[bold]{node['kind']}[/]/{node['digest'][:12]}  {counts}")
    for item in node.get("inputs", []):
        tree.add(_branch(item))
    return tree
