"""The `headwater` command: the app and its commands, which import heavy modules only when they run."""

from __future__ import annotations

import sys
import traceback
from typing import Annotated

import typer

from flows.cli.console import INTERRUPTED, Json, err, escape, print_json, show
from flows.cli.doctor import doctor
from flows.cli.export import export
from flows.cli.lineage import lineage
from flows.cli.open_page import open_page
from flows.cli.run import run
from flows.cli.runs import compare, runs
from flows.cli.services import down, status, up
from flows.cli.tokens import app as tokens
from flows.cli.upkeep import gc, verify
from stages.store.errors import HeadwaterError
from stages.store.private_files import keep_private

app = typer.Typer(
    name="headwater",
    help="Documents in; a served, evaluated, registered language model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def main() -> None:
    """Runs the command line. A user error ends with one message and exit code 2, without a traceback."""
    keep_private()
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except HeadwaterError as error:
        if debug:
            traceback.print_exc()
        err.print(f"[bold red]error:[/] {escape(str(error))}")
        sys.exit(2)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(INTERRUPTED)


def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe with all its settings.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON schema for editors.")] = False,
    as_json: Json = False,
) -> None:
    """List the recipes, show one, or print the schema."""
    import yaml

    from flows.recipe import Recipe, load_recipe, recipe_names

    if schema:
        print_json(Recipe.model_json_schema())
        return
    if name:
        content = load_recipe(name).model_dump(mode="json")
        print_json(content) if as_json else print(yaml.safe_dump(content, sort_keys=False), end="")
        return
    rows = [{"name": n, "description": load_recipe(n).description} for n in recipe_names()]
    show("Recipes", rows, as_json)


for command in (run, recipes, lineage, up, down, status, doctor, gc, verify, runs, compare, export):
    app.command()(command)
app.command("open")(open_page)
app.add_typer(tokens, name="tokens")


if __name__ == "__main__":
    main()
