"""The plan of a run as a table: one row per source, under its phase."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from flows import present

COLUMNS = ("phase", "step", "rows per sample", "source", "share", "samples", "tokens", "epochs", "then")


def print_plan(console: Console, plan: Mapping[str, Any]) -> None:
    """Prints a plan of `stages.training.preflight.plan.plan_of`."""
    columns, rows = plan_table(plan)
    present.print_table(console, "What this run will read", columns, rows)
    for length, left in plan["rows_left_out"].items():
        counts = ", ".join(f"{count:,} of {name}" for name, count in left.items() if count)
        if counts:
            console.print(f"rows left out, too few for a sample of {length} rows: {counts}", markup=False)
    for warning in plan["warnings"]:
        console.print(f"warning: {warning}", markup=False, soft_wrap=True)


def plan_records(plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The same table for Prefect's page."""
    return present.records(*plan_table(plan))


def plan_table(plan: Mapping[str, Any]) -> tuple[list[str], list[list[Any]]]:
    """Columns and rows: the sources of each segment, and of the whole run if it has several segments.

    A column with the same value in every row is left out, so that a plain run's table fits a narrow terminal.
    """
    rows: list[list[Any]] = []
    for segment in plan["segments"]:
        step = f"{segment['first_position'] / plan['global_batch_size']:,.2f}".removesuffix(".00")
        head = [segment["phase"], step, segment["rows_per_sample"]]
        for name, source in segment["sources"].items():
            then = "exhausted" if name in segment["exhausted_sources"] else ""
            rows.append([*head, name, *_numbers(source), then])
            head = ["", "", ""]
    hidden = set()
    if len(plan["segments"]) > 1:
        for number, (name, source) in enumerate(plan["sources"].items()):
            rows.append(["" if number else "all", "", "", name, *_numbers(source), ""])
    else:
        hidden |= {"phase", "step"}
    if all(segment["rows_per_sample"] == 1 for segment in plan["segments"]):
        hidden.add("rows per sample")
    if not any(row[-1] for row in rows):
        hidden.add("then")
    kept = [number for number, column in enumerate(COLUMNS) if column not in hidden]
    return [COLUMNS[number] for number in kept], [[row[number] for number in kept] for row in rows]


def _numbers(source: Mapping[str, Any]) -> list[Any]:
    return [f"{source['share']:.1%}", source["samples"], source["tokens"], f"{source['epochs']:.2f}"]
