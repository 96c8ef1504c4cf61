"""The plan of a run as people read it: one line a source, under the phase that draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from flows import present

COLUMNS = ("phase", "from step", "k", "source", "share", "samples", "tokens", "epochs", "then")


def print_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """Prints what `stages.training.plan.plan_of` gives."""
    present.print_table(console, "What this run will read", COLUMNS, plan_rows(plan))
    for k, left in plan["rows_left_out"].items():
        told = ", ".join(f"{count:,} of {name}" for name, count in left.items() if count)
        if told:
            console.print(f"rows left out at k = {k}, too few for a sample: {told}", markup=False)
    for warning in plan["warnings"]:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def plan_records(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same table for Prefect's page."""
    return present.records(COLUMNS, plan_rows(plan))


def plan_rows(plan: Mapping[str, Any]) -> list[list[Any]]:
    """Lines of the table: per stretch its sources, and the whole run at the end."""
    rows: list[list[Any]] = []
    for stretch in plan["stretches"]:
        step = f"{stretch['first_position'] / plan['batch']:,.2f}".removesuffix(".00")
        head = [stretch["phase"], step, stretch["k"]]
        for name, source in stretch["sources"].items():
            then = "used up" if name in stretch["ended_by_repeat_of"] else ""
            rows.append([*head, name, *_numbers(source), then])
            head = ["", "", ""]
    head = ["all", "", ""]
    for name, source in plan["sources"].items():
        rows.append([*head, name, *_numbers(source), ""])
        head = ["", "", ""]
    return rows


def _numbers(source: Mapping[str, Any]) -> list[Any]:
    return [f"{source['share']:.1%}", source["samples"], source["tokens"], f"{source['epochs']:.2f}"]
