"""`headwater tokens`: a run's plan, the documents of a step, the steps of a document, and verification of tokens."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from flows.cli.console import Json, err, load, out, print_json, show

app = typer.Typer(
    help="The token stream: a run's plan, from a step to its documents and back, and verification.",
    no_args_is_help=True,
)
Run = Annotated[str, typer.Argument(help="Recipe, ref such as biomed/champion, training/DIGEST, or a run's folder.")]


@app.command()
def plan(
    name: Annotated[
        str, typer.Argument(metavar="RECIPE|RUN", help="Recipe (name or YAML file), or a run as for `at`.")
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a recipe setting: training.data.weights={a: 3, b: 1}."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show what a run will read: tokens, shares and epochs by source and phase."""
    from flows.plan_table import print_plan
    from stages.store import ConfigError, Store, by_digest
    from stages.training.preflight.plan import plan_of

    store = Store(load().store)
    if _is_recipe(name):
        from flows.steps import recipe_tokens

        config, tokens = recipe_tokens(name, overrides or [], store)
    elif overrides:
        raise ConfigError(f"--set changes a recipe, and {name!r} is a run; give its recipe")
    else:
        from flows.runs import find_run

        run = find_run(store, name)
        config, tokens = run.config, by_digest(store, f"tokens/{run.tokens_digest}")
    found = plan_of(tokens, config)
    print_json(found) if as_json else print_plan(out, found)


@app.command()
def at(
    run: Run,
    step: Annotated[int, typer.Argument(help="Number of a batch, from 0.")],
    rank: Annotated[int | None, typer.Option("--rank", help="Only this rank's part of the batch.")] = None,
    ranks: Annotated[int | None, typer.Option("--ranks", help="World size. Absent: as recorded by the run.")] = None,
    as_json: Json = False,
) -> None:
    """List the documents in one batch of a run, and whether it was applied, skipped or discarded. Reads no tokens."""
    from flows.tracing import batch_documents

    found = batch_documents(load().store, run, step, rank, ranks)
    if as_json:
        print_json(found)
        return
    of = f", rank {rank} of {found['ranks']}" if rank is not None else ""
    out.print(f"{found['run']}, step {step}{of}: {found['fate']}", markup=False, soft_wrap=True)
    show("", [_line(document) for document in found["documents"]], False)


@app.command()
def where(
    run: Run,
    document: Annotated[str, typer.Argument(metavar="DOC_ID|URI", help="A document's id, or its uri.")],
    as_json: Json = False,
) -> None:
    """List the steps of a run that read a document, and the fate of each. Reads no tokens."""
    from flows.tracing import document_steps

    found = document_steps(load().store, run, document)
    if as_json:
        print_json(found)
        return
    for line in found["documents"]:
        name = f"{line['source']} {line['uri']} ({line['doc_id']}, {line['license']})"
        held_out = ", held out: no step reads it" if line["held_out"] else ""
        out.print(f"{name}, {line['tokens']:,} tokens{held_out}", markup=False, soft_wrap=True)
    rows = [{"step": seen["step"], **_line(seen), "state": seen["fate"]} for seen in found["steps"]]
    show(f"Steps of {found['run']}", rows, False)
    if not rows:
        out.print(f"no step of {found['run']} reads it")


@app.command()
def verify(
    name: Annotated[
        str, typer.Argument(metavar="[RECIPE|TOKENS]", help="Recipe, ref, or tokens/DIGEST. Absent: all in the store.")
    ] = "",
    as_json: Json = False,
) -> None:
    """Verify tokens: checksums, ids, ends of documents, tables, indexes, the corpus's documents. Exit code 1 if any
    check fails."""
    from dataclasses import asdict

    from flows.cli.upkeep import counted, reading_bar, size
    from flows.runs import find_artifact
    from stages.store import Store, StoreError, all_artifacts
    from stages.tokens.verify import bytes_to_read, verify_tokens

    store = Store(load().store)
    chosen = [find_artifact(store, name, "tokens")] if name else list(all_artifacts(store, "tokens"))
    if not chosen:
        raise StoreError(f"there are no tokens in {store.url}; `headwater run` builds them")
    corpora = {artifact.digest: artifact for artifact in all_artifacts(store, "corpus")}
    results: list[dict[str, Any]] = []
    with reading_bar(err, sum(bytes_to_read(tokens) for tokens in chosen)) as bar:
        for tokens in chosen:
            corpus = corpora.get(tokens.manifest.inputs["corpus"])
            found = []
            for finding in verify_tokens(tokens, corpus, bar.read):
                found.append(asdict(finding))
                if not as_json:
                    bar.print(f"{store.where(tokens.folder)}/{finding}")
            results.append(
                {
                    "tokens": tokens.id,
                    "folder": store.where(tokens.folder),
                    "bytes": bytes_to_read(tokens),
                    "corpus": corpus.id if corpus else None,
                    "findings": found,
                }
            )
    if as_json:
        print_json(results)
    else:
        for result in results:
            errors = len(result["findings"])
            compared = f"compared with {result['corpus']}" if result["corpus"] else "its corpus is missing"
            state = counted(errors, "error") if errors else "no errors"
            out.print(f"{result['tokens']}, {size(result['bytes'])}, {compared}: {state}", markup=False, soft_wrap=True)
    if any(result["findings"] for result in results):
        raise typer.Exit(1)


def _is_recipe(name: str) -> bool:
    from flows.recipe import recipe_names

    return name.endswith((".yaml", ".yml")) or name in recipe_names()


def _line(seen: dict[str, Any]) -> dict[str, Any]:
    """A document in a batch, as a row of the table."""
    first, last = seen["offset"], seen["offset"] + seen["tokens"] - 1
    return {
        "slot": seen["slot"],
        "source": seen["source"],
        "uri": seen["uri"],
        "license": seen["license"],
        "tokens": f"{first:,}-{last:,} of {seen['of']:,}",
    }
