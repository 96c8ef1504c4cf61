"""A benchmark's figures held against what was asked for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

from rich.console import Console
from rich.table import Table

Targets: TypeAlias = dict[str, tuple[str, float]]
"""Figure -> (">=" or "<=", limit)."""


def print_targets(console: Console, result: Mapping[str, Any], targets: Targets) -> None:
    """A table of the figures, and below it what could not be measured, with the reason."""
    table = Table("figure", "measured", "asked for", "", title="Against the targets")
    for name, (sign, limit) in targets.items():
        value = result[name]
        held = value is not None and (value >= limit if sign == ">=" else value <= limit)
        shown = "-" if value is None else f"{value:.4g}"
        table.add_row(name, shown, f"{sign} {limit:g}", "" if value is None else "held" if held else "MISSED")
    console.print(table)
    for what, why in result["not_measured"].items():
        console.print(f"not measured: {what} ({why})", highlight=False, markup=False)
