"""How results look: tables for the terminal and for Prefect, small numbers made readable."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[Any]]


def print_table(console: Console, title: str, columns: Sequence[str], rows: Rows) -> None:
    """One table; the first column left, numbers right."""
    console.print(f"[bold]{title}[/]")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        right = number > 0 and all(_is_number(row[number]) for row in rows)
        table.add_column(column.replace("_", " "), justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(text(value) for value in row))
    console.print(table)


def records(columns: Sequence[str], rows: Rows) -> list[dict[str, Any]]:
    """The same table as a list of mappings, for JSON and Prefect."""
    return [dict(zip(columns, row, strict=True)) for row in rows]


def text(value: Any) -> str:
    """A value as people read it."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.1f}" if abs(value) >= 1000 else f"{value:.3f}" if abs(value) < 100 else f"{value:.1f}"
    return str(value)


def sparkline(values: Iterable[float], width: int = 60) -> str:
    """A curve in one line of text; each mark is the mean of its part."""
    points = [float(value) for value in values]
    if not points:
        return ""
    width = min(width, len(points))
    parts = [points[i * len(points) // width : (i + 1) * len(points) // width] for i in range(width)]
    means = [sum(part) / len(part) for part in parts]
    low, high = min(means), max(means)
    marks = "▁▂▃▄▅▆▇█"
    scale = (len(marks) - 1) / (high - low) if high > low else 0.0
    return "".join(marks[round((mean - low) * scale)] for mean in means)


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, int | float)
