"""`headwater runs` and `headwater compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import Json, err, load, out, print_json, show

Run = Annotated[str, typer.Argument(help="Recipe, ref such as biomed/champion, training/DIGEST, or a run's folder.")]


def runs(as_json: Json = False) -> None:
    """List the training runs in the store, finished or not, the newest first."""
    from flows.histories import overview_rows
    from stages.store import Store

    rows = overview_rows(Store(load().store))
    show("Training runs", rows, as_json)
    if not rows and not as_json:
        err.print("no training run yet; `headwater run` makes one")


def compare(
    first: Run,
    second: Run,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Write a page with the curves too.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what differs between two training runs in recipe and data, and their losses at equal tokens."""
    from flows import compare as comparing
    from flows.runs import find_run
    from stages.store import ConfigError, Store

    store = Store(load().store)
    found = comparing.compare(store, find_run(store, first), find_run(store, second))
    if html:
        from flows.compare_page import comparison_page

        try:
            html.write_text(comparison_page(found), encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--html: cannot write {html}: {error.strerror}") from None
    if as_json:
        print_json(found.as_dict())
        return
    out.print(f"[bold]first[/]   {found.names[0]}\n[bold]second[/]  {found.names[1]}\n")
    out.print("[bold]What is different[/]")
    for line in found.differences or ["nothing in recipe and data"]:
        out.print(f"  {line}", markup=False)
    out.print()
    show("Losses at equal tokens", found.losses, False)
    show("Bits per byte of held-out text, by the last validation", found.held_out, False)
    show("Where the time went, in seconds", found.times, False)
    show("What they came to", found.ends, False)
    if html:
        out.print(f"curves: {html}", markup=False)
