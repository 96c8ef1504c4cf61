"""`headwater runs` and `headwater compare`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from flows.cli.console import Json, err, load, out, print_json, show

Run = Annotated[str, typer.Argument(help="Recipe, ref such as biomed/champion, training/DIGEST, or a run's folder.")]


def runs(as_json: Json = False) -> None:
    """List the training runs in the store, finished or not, newest first."""
    from flows.histories import overview_rows
    from stages.store import Store

    rows = overview_rows(Store(load().store))
    show("Training runs", rows, as_json)
    if not rows and not as_json:
        err.print("no training run yet; `headwater run` starts one")


def compare(
    first: Run,
    second: Run,
    html: Annotated[
        Path | None, typer.Option("--html", metavar="FILE", help="Also write a page with the curves.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Compare two training runs: recipe, data, losses at equal tokens, held-out bits per byte, seconds by phase."""
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
    out.print("[bold]Differences[/]")
    for line in found.differences or ["none in recipe and data"]:
        out.print(f"  {line}", markup=False)
    out.print()
    show("Losses at equal tokens", found.losses, False)
    show("Held-out bits per byte at the last validation", found.held_out, False)
    show("Seconds by phase", found.times, False)
    show("Results", found.ends, False)
    if html:
        out.print(f"curves: {html}", markup=False)
