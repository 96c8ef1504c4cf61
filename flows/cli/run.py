"""`headwater run`: runs `pretrain` on a recipe in this process, or says what it would run."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from flows.cli.console import INTERRUPTED, Json, err, load, out, print_json, show
from flows.cli.services import start_services
from stages.store.errors import ConfigError, HeadwaterError

GATE_REJECTED = 3
"""Exit code of a run whose model was rejected by the gate."""

Overrides = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe setting: training.steps=200.")
]


def _refuse_again(value: bool) -> None:
    if value:
        raise ConfigError("run: the option --again is now called --force-new-run")


def run(
    recipe: Annotated[str, typer.Argument(help="Recipe name or YAML file.")] = "biomed",
    data: Annotated[str | None, typer.Option(help="Folder (or URL) of your own documents.")] = None,
    evaluation: Annotated[str | None, typer.Option("--eval", help="Folder (or URL) of your own question sets.")] = None,
    overrides: Overrides = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show which stages are cached, which would run, and why.")
    ] = False,
    force_new_run: Annotated[
        bool, typer.Option("--force-new-run", help="Train a new run although this plan has a finished one.")
    ] = False,
    _again: Annotated[bool, typer.Option("--again", hidden=True, callback=_refuse_again)] = False,
    as_json: Json = False,
) -> None:
    """Run pretrain/RECIPE here: documents in, a served and registered model out. Starts the services if needed."""
    settings = load()
    _refuse_credentials(recipe, data, evaluation, overrides or [])
    recipe = str(Path(recipe).resolve()) if recipe.endswith((".yaml", ".yml")) else recipe
    data, evaluation = _absolute(data, "--data"), _absolute(evaluation, "--eval")
    if dry_run:
        _dry_run(settings, recipe, data, evaluation, overrides or [], force_new_run, as_json)
        return
    _check_recipe(recipe, data, evaluation, overrides or [])
    start_services(settings, {"prefect"})
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
    os.environ.setdefault("PREFECT_LOGGING_INTERNAL_LEVEL", "CRITICAL")

    from flows.pretrain import pretrain
    from flows.report import Summary, print_summary
    from infra.services import register_run

    try:
        with register_run(settings):
            state = pretrain(
                recipe=recipe,
                data=data or "",
                evaluation_data=evaluation or "",
                overrides=overrides or [],
                force_new_run=force_new_run,
                return_state=True,
            )
    except KeyboardInterrupt:
        err.print("stopped; the same command resumes the run")
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
    from flows.steps import RunArtifacts, plan_steps, unread_notes
    from stages.store import Store

    chosen, notes = resolve_recipe(recipe, data, evaluation, overrides)
    artifacts = RunArtifacts()
    rows: list[dict[str, Any]] = [
        {"stage": p.kind, "state": p.state, "folder": p.plan.folder if p.plan else "", "why": list(p.why)}
        for p in plan_steps(chosen, Store(settings.store), force_new_run, artifacts)
    ]
    if not data:  # the notes about a person's own folder have everything in it
        notes += unread_notes(artifacts)
    if as_json:
        print_json([row | {"notes": notes} if row["stage"] == "corpus" else row for row in rows])
        return
    for note in notes:
        err.print(note, markup=False)
    # "after X" is also among the reasons: left out of the state, so that the table fits 100 columns.
    table = [{**row, "state": row["state"].partition(" after ")[0], "why": "\n".join(row["why"])} for row in rows]
    show(f"pretrain/{chosen.name}", table, False)


def _refuse_credentials(recipe: str, data: str | None, evaluation: str | None, overrides: list[str]) -> None:
    """Refuses credentials before Prefect records the parameters, and before another message repeats them."""
    from flows.inputs import check_parameters

    check_parameters(recipe, data, evaluation, overrides)


def _check_recipe(recipe: str, data: str | None, evaluation: str | None, overrides: list[str]) -> None:
    """Refuses invalid parameters before any service is started."""
    from flows.inputs import resolve_recipe

    resolve_recipe(recipe, data, evaluation, overrides)


def _absolute(value: str | None, option: str) -> str | None:
    if not value:
        return None
    if "://" in value:
        return value
    path = Path(value).expanduser().resolve()
    if not os.path.exists(path):  # Path.exists raises an error for a name that is too long
        raise HeadwaterError(f"{option}: {path} does not exist")
    return str(path)
