"""The `headwater` command. Heavy modules are imported by the commands that need them, so that help is instant."""

from __future__ import annotations

import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import Json, err, escape, load, out, print_json, show
from flows.cli.doctor import doctor
from flows.cli.runs import compare, runs
from flows.cli.tokens import app as tokens
from flows.cli.upkeep import gc, verify
from stages.store.errors import ConfigError, HeadwaterError

app = typer.Typer(
    name="headwater",
    help="Documents in; a served, evaluated, registered language model out.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe setting: training.steps=200.")
]
GATE_REJECTED = 3
"""Exit code of a run whose model was made and turned away by the gate."""
INTERRUPTED = 130
"""Exit code of a run that was stopped by Ctrl-C or cancelled in Prefect: what a shell says of SIGINT."""


def main() -> None:
    """Runs the command line: a user's mistake ends with one message and exit code 2, never with a traceback."""
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


def _refuse_again(value: bool) -> None:
    if value:
        raise ConfigError("run: the option --again is now called --force-new-run")


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Recipe name or YAML file.")] = "biomed",
    data: Annotated[str | None, typer.Option(help="Folder (or URL) of your own documents.")] = None,
    evaluation: Annotated[str | None, typer.Option("--eval", help="Folder (or URL) of your own question sets.")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say which stages are there and which would run.")
    ] = False,
    force_new_run: Annotated[
        bool, typer.Option("--force-new-run", help="Train a new run although this plan has a finished one.")
    ] = False,
    _again: Annotated[bool, typer.Option("--again", hidden=True, callback=_refuse_again)] = False,
    as_json: Json = False,
) -> None:
    """Run pretrain/RECIPE here: documents in, a served and registered model out. Services are started if needed."""
    settings = load()
    recipe = str(Path(recipe).resolve()) if recipe.endswith((".yaml", ".yml")) else recipe
    data, evaluation = _absolute(data, "--data"), _absolute(evaluation, "--eval")
    if dry_run:
        _dry_run(settings, recipe, data, evaluation, overrides or [], force_new_run, as_json)
        return
    _check_recipe(recipe, data, evaluation, overrides or [])
    _up(settings, {"prefect"})
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")

    from flows.cancel import CancelledInPrefect
    from flows.pretrain import pretrain
    from flows.report import Summary, print_summary
    from infra.services import announced_run

    try:
        with announced_run(settings):
            state = pretrain(
                recipe=recipe,
                data=data or "",
                evaluation_data=evaluation or "",
                overrides=overrides or [],
                force_new_run=force_new_run,
                return_state=True,
            )
    except KeyboardInterrupt as interrupt:
        if isinstance(interrupt, CancelledInPrefect):
            interrupt.confirm()
        err.print("stopped; the same command goes on from here")
        raise typer.Exit(INTERRUPTED) from None
    if not state.is_completed():
        failure = state.result(raise_on_failure=False)
        if isinstance(failure, BaseException):
            raise failure
        raise HeadwaterError(f"the run ended as {state.name}: {state.message}")
    summary = Summary.model_validate(state.result())
    if as_json:
        print_json(summary.model_dump(mode="json"))
    else:
        print_summary(out, summary)
    if not summary.accepted:
        raise typer.Exit(GATE_REJECTED)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Show this recipe whole, defaults included.")] = None,
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


@app.command()
def lineage(
    artifact: Annotated[str, typer.Argument(help="Digest, kind/digest, or ref such as biomed/champion.")],
    as_json: Json = False,
) -> None:
    """What an artifact is made of, back to the source files."""
    from flows.lineage import print_tree, trace
    from stages.store import Store

    tree = trace(Store(load().store), artifact)
    print_json(tree) if as_json else print_tree(out, tree)


@app.command()
def up(as_json: Json = False) -> None:
    """Start the local services and register the deployments; what runs already is left alone."""
    from infra.services import status as service_status

    settings = load()
    _up(settings, None, register_always=True)
    if as_json:
        print_json({row["service"]: row["url"] for row in service_status(settings)})
        return
    for row in service_status(settings):
        if row["url"]:
            out.print(f"[bold]{row['service']:<10}[/] {row['url']}")


@app.command()
def down(as_json: Json = False) -> None:
    """Stop everything that was started; nothing of it stays alive."""
    from flows.prefect_setup import forget_profile
    from infra.services import down as stop_services

    settings = load()
    ended = stop_services(settings, lambda line: err.print(line))
    forget_profile()
    if as_json:
        print_json({"stopped": ended})
    elif not ended:
        err.print("nothing was running")


@app.command()
def status(as_json: Json = False) -> None:
    """Services, what is served, and the refs in the store."""
    from infra.services import status as service_status
    from serving.record import read_record
    from stages.store import Store, list_refs

    settings = load()
    store = Store(settings.store)
    rows = service_status(settings)
    if not as_json:  # first, since the store may be away
        show(
            "Services", [{k: row[k] for k in ("service", "running", "answering", "pid", "url")} for row in rows], False
        )
        out.print(f"[bold]store[/]  {store.url}")
    record, refs = read_record(store), list_refs(store)
    served = record.stable.model_dump(mode="json") if record.stable else None
    if as_json:
        print_json({"services": rows, "served": served, "refs": refs, "store": store.url})
        return
    if served:
        out.print(f"[bold]served[/] {served['name']} version {served['version']}, model/{served['model_digest'][:12]}")
    if refs:
        show("Refs", [{"ref": name, "digest": digest[:12]} for name, digest in refs.items()], False)


app.command()(doctor)
app.command()(gc)
app.command()(verify)
app.command()(runs)
app.command()(compare)
app.add_typer(tokens, name="tokens")


def _up(settings: Any, wait_for: set[str] | None, register_always: bool = False) -> dict[str, float]:
    from flows.prefect_setup import register, use_profile
    from infra.services import managed
    from infra.services import up as start_services
    from serving.gateway.keys import ensure_key

    fresh = managed(settings, "prefect").find() is None
    key, created = ensure_key(settings.api_key_file)
    if created:
        err.print(f"API key of the endpoint (shown once, kept in {settings.api_key_file}): {key}", soft_wrap=True)
    seconds = start_services(settings, wait_for=wait_for, say=lambda line: err.print(line, style="dim"))
    if fresh or register_always:
        register(settings)
        if not use_profile(settings):
            err.print(f"your own Prefect profile is left active; use PREFECT_API_URL={settings.prefect_api_url}")
    return seconds


def _dry_run(
    settings: Any,
    recipe: str,
    data: str | None,
    evaluation: str | None,
    overrides: list[str],
    force_new_run: bool,
    as_json: bool,
) -> None:
    from flows.inputs import resolve_recipe
    from flows.steps import plan_steps
    from stages.store import Store

    chosen, notes = resolve_recipe(recipe, data, evaluation, overrides)
    rows: list[dict[str, Any]] = [
        {"stage": p.kind, "state": p.state, "folder": p.plan.folder if p.plan else "", "why": list(p.why)}
        for p in plan_steps(chosen, Store(settings.store), force_new_run)
    ]
    if as_json:
        print_json(rows)
        return
    for note in notes:
        err.print(note, markup=False)
    # A stage that waits for another says so as its reason: the table is to fit 100 columns.
    told = [{**row, "state": row["state"].partition(" after ")[0], "why": "\n".join(row["why"])} for row in rows]
    show(f"pretrain/{chosen.name}", told, False)


def _check_recipe(recipe: str, data: str | None, evaluation: str | None, overrides: list[str]) -> None:
    """Refuses a wrong parameter before any service is started."""
    from flows.inputs import resolve_recipe

    resolve_recipe(recipe, data, evaluation, overrides)


def _absolute(value: str | None, option: str) -> str | None:
    if not value:
        return None
    if "://" in value:
        return value
    path = Path(value).expanduser().resolve()
    if not path.exists():
        raise HeadwaterError(f"{option}: {path} does not exist")
    return str(path)


if __name__ == "__main__":
    main()
