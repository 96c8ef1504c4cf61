"""Presentation: tables for the terminal and for Prefect, readable numbers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

Rows = Sequence[Sequence[Any]]

GAP = 2
"""Characters between two columns of a table."""


def print_table(console: Console, title: str, columns: Sequence[str], rows: Rows) -> None:
    """One table; the first column left-aligned, numbers right-aligned. If it is too wide, its last columns are wrapped
    first, and words are broken only if wrapping is not enough."""
    console.print(f"[bold]{title}[/]")
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    heads = [column.replace("_", " ") for column in columns]
    cells = [[text(value) for value in row] for row in rows]
    widths = _widths([heads, *cells], console.width - GAP * len(columns))
    for number, (head, width) in enumerate(zip(heads, widths, strict=True)):
        right = number > 0 and all(_is_number(row[number]) for row in rows)
        table.add_column(head, justify="right" if right else "left", overflow="fold", width=width)
    for row in cells:
        table.add_row(*row)
    console.print(table)


def _widths(lines: Sequence[Sequence[str]], room: int) -> list[int | None]:
    """Characters of each column: enough for its longest word, and from left to right for its longest text while there
    is room. None, which leaves it to rich, if not even the words fit."""
    columns = [*zip(*lines, strict=True)]
    widths = [max(len(word) for cell in column for word in [*cell.split(), ""]) for column in columns]
    spare = room - sum(widths)
    if spare < 0:
        return [None] * len(columns)
    for number, column in enumerate(columns):
        more = min(spare, max(map(len, column)) - widths[number])
        widths[number] += more
        spare -= more
    return [*widths]


def records(columns: Sequence[str], rows: Rows) -> list[dict[str, Any]]:
    """The same table as a list of mappings, for JSON and Prefect."""
    return [dict(zip(columns, row, strict=True)) for row in rows]


def text(value: Any) -> str:
    """A value in readable form."""
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
    """A curve in one line of text; each character is the mean of its part."""
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
