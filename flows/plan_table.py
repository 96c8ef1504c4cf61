"""The plan of a run as people read it: one line a source, under the phase that draws it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from flows import present

COLUMNS = ("phase", "step", "k", "source", "share", "samples", "tokens", "epochs", "then")


def print_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """Prints what `stages.training.preflight.plan.plan_of` gives."""
    columns, rows = plan_table(plan)
    present.print_table(console, "What this run will read", columns, rows)
    for k, left in plan["rows_left_out"].items():
        told = ", ".join(f"{count:,} of {name}" for name, count in left.items() if count)
        if told:
            console.print(f"rows left out at k = {k}, too few for a sample: {told}", markup=False)
    for warning in plan["warnings"]:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def plan_records(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same table for Prefect's page."""
    return present.records(*plan_table(plan))


def plan_table(plan: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and lines: per stretch its sources, and the whole run where it has several stretches.

    A column that would say the same in every line is left out, so that a plain run's table fits a narrow terminal.
    """
    rows: list[list[Any]] = []
    for stretch in plan["stretches"]:
        step = f"{stretch['first_position'] / plan['batch']:,.2f}".removesuffix(".00")
        head = [stretch["phase"], step, stretch["k"]]
        for name, source in stretch["sources"].items():
            then = "used up" if name in stretch["ended_by_repeat_of"] else ""
            rows.append([*head, name, *_numbers(source), then])
            head = ["", "", ""]
    silent = set()
    if len(plan["stretches"]) > 1:
        for number, (name, source) in enumerate(plan["sources"].items()):
            rows.append(["" if number else "all", "", "", name, *_numbers(source), ""])
    else:
        silent |= {"phase", "step"}
    if all(stretch["k"] == 1 for stretch in plan["stretches"]):
        silent.add("k")
    if not any(row[-1] for row in rows):
        silent.add("then")
    kept = [number for number, column in enumerate(COLUMNS) if column not in silent]
    return [COLUMNS[number] for number in kept], [[row[number] for number in kept] for row in rows]


def _numbers(source: Mapping[str, Any]) -> list[Any]:
    return [f"{source['share']:.1%}", source["samples"], source["tokens"], f"{source['epochs']:.2f}"]
