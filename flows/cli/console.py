"""Shared by the commands: the two consoles, tables and JSON, the settings of this machine."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer
from rich.console import Console

WIDTH = 140
"""Characters per line in a file or a pipe."""
INTERRUPTED = 130
"""Exit code of a command that was stopped by Ctrl-C, or cancelled in Prefect: 128 + SIGINT, as shells report it."""


def _console(stderr: bool = False) -> Console:
    console = Console(stderr=stderr, highlight=False)
    return console if console.is_terminal else Console(stderr=stderr, highlight=False, width=WIDTH)


out, err = _console(), _console(stderr=True)

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]


def load() -> Any:
    """The settings of this machine, applied to this process."""
    from infra.settings import apply_environment, load_settings

    settings = load_settings()
    apply_environment(settings)
    return settings


def show(title: str, rows: list[dict[str, Any]], as_json: bool) -> None:
    """Prints rows with the same keys, as a table or as JSON."""
    from flows import present

    if as_json:
        print_json(rows)
    elif rows:
        present.print_table(out, title, list(rows[0]), [list(row.values()) for row in rows])


def print_json(value: Any) -> None:
    """Prints JSON on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def escape(text: str) -> str:
    """`text` with rich's markup escaped."""
    return text.replace("[", r"\[")
