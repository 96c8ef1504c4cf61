"""The main job: documents in, a served, evaluated and registered model out.

Read `pretrain` from top to bottom: one task a stage. Every stage whose artifact is there is skipped, so a run can be
killed at any time and started again.
"""

from __future__ import annotations

import logging
import sys
from typing import Annotated, Any

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State
from pydantic import Field
from rich.console import Console

from flows import present, registry
from flows.job import Job
from flows.inputs import resolve_recipe
from flows.report import Summary, markdown, summarise
from flows.steps import STEP, evaluation_inputs, list_inputs
from infra.settings import load_settings
from serving.deploy import deploy
from serving.record import Deployed
from stages.artifact import Artifact, ConfigError, Store, read_ref, write_ref
from stages.corpus import summary_rows
from stages.evaluation import accepted, evaluation, table
from stages.training import launch


@flow(name="pretrain", persist_result=False, validate_parameters=True)
def pretrain(
    recipe: Annotated[
        str, Field(description="Recipe: a name from `headwater recipes`, or the absolute path of a YAML file.")
    ] = "biomed",
    data: Annotated[
        str | None,
        Field(description="Your own documents instead of the recipe's: an absolute path or a URL of a folder."),
    ] = None,
    evaluation_data: Annotated[
        str | None,
        Field(description="Your own question sets: an absolute path or a URL of a folder of JSON Lines files."),
    ] = None,
    overrides: Annotated[list[str], Field(description="Recipe settings to change, each as section.key=value.")] = [],  # noqa: B006
    again: Annotated[bool, Field(description="Train a new run although the same plan has a finished one.")] = False,
) -> State[Any]:
    """Makes a language model from documents: corpus, tokens, training, evaluation, gate, registry, endpoint."""
    job = open_job(recipe, data, evaluation_data, overrides, again)
    try:
        if job.recipe.sample:
            make_sample(job)
        list_inputs(job.recipe, job.made)
        make_corpus(job)
        make_tokens(job)
        train(job)
        export_model(job)
        evaluate(job)
        passed = judge(job)
        version = register(job, passed)
        serve(job, version)
        return finish(job, passed, version)
    finally:
        launch.shutdown()
        job.close()


@task(name="sample", cache_policy=NO_CACHE)
def make_sample(job: Job) -> str:
    """The embedded synthetic documents and question sets."""
    return job.make("sample").id


@task(name="corpus", cache_policy=NO_CACHE)
def make_corpus(job: Job) -> str:
    """Policy, deduplication, edits, filters, decontamination, held-out split."""
    artifact = job.make("corpus")
    columns, rows = summary_rows(artifact)
    create_table_artifact(present.records(columns, rows), key="corpus", description="Documents in, removed and kept")
    return artifact.id


@task(name="tokens", cache_policy=NO_CACHE)
def make_tokens(job: Job) -> str:
    """Tokenizer and shards. Ray starts meanwhile, if there is training to do."""
    if not STEP["tokens"].stage.plan(job.recipe.tokens, {"corpus": job.made["corpus"]}, job.store).done:
        job.background.submit(launch.prestart, job.recipe.training)
    return job.make("tokens").id


@task(name="training", cache_policy=NO_CACHE)
def train(job: Job) -> str:
    """Pretraining on Ray Train with FSDP2; curves go to MLflow while it runs."""
    job.mlflow_ready()
    tags = {"headwater.recipe": job.recipe.name, "headwater.tokens": job.made["tokens"].digest}
    sink = lambda plan: registry.MlflowSink(job.settings.mlflow_url, job.recipe.name, job.store, plan.folder, tags)  # noqa: E731
    return job.make("training", (sink,)).id


@task(name="model", cache_policy=NO_CACHE)
def export_model(job: Job) -> str:
    """Stock Hugging Face weights."""
    return job.make("model").id


@task(name="evaluation", cache_policy=NO_CACHE)
def evaluate(job: Job) -> str:
    """Bits-per-byte on held-out documents and the question sets, with baselines."""
    artifact = job.make("evaluation")
    create_table_artifact(present.records(*table(artifact)), key="evaluation", description="Scores and baselines")
    return artifact.id


@task(name="verdict", cache_policy=NO_CACHE)
def judge(job: Job) -> bool:
    """The gate: is the candidate fit to replace the champion? True if the candidate is (or already was) champion."""
    candidate = job.made["model"]
    champion = read_ref(job.store, job.recipe.name, "champion")
    if champion and champion.digest == candidate.digest:
        ref = read_ref(job.store, job.recipe.name, "verdict")
        if ref:
            job.made.artifacts["verdict"] = ref
        return True
    if champion:  # scored on the candidate's sets, so that both are compared on the same items
        inputs = evaluation_inputs(job.recipe, job.made, champion)
        job.made.artifacts["champion-evaluation"] = job.run(evaluation, job.recipe.evaluation, inputs, "champion")
    return accepted(job.make("verdict"))


@task(name="register", cache_policy=NO_CACHE)
def register(job: Job, passed: bool) -> registry.RegisteredModel:
    """A version in the MLflow registry; the gate decides its alias, the store's ref is the truth."""
    job.mlflow_ready()

    def work() -> registry.RegisteredModel:
        rows = present.records(*table(job.made["evaluation"]))
        model = registry.register(job.settings.mlflow_url, job.recipe.name, job.store, job.made.artifacts, rows)
        if passed:
            write_ref(job.store, job.recipe.name, "champion", job.made["model"])
        if "verdict" in job.made.artifacts:
            registry.promote(job.settings.mlflow_url, model, job.made["verdict"], passed)
        return model

    model: registry.RegisteredModel = job.timed("register", work)
    create_link_artifact(registry.model_url(job.settings.mlflow_url, model), "MLflow model version", key="mlflow-model")
    create_link_artifact(
        registry.run_url(job.settings.mlflow_url, job.settings.mlflow_url, model.run_id), "MLflow run", key="mlflow-run"
    )
    return model


@task(name="serving", cache_policy=NO_CACHE)
def serve(job: Job, model: registry.RegisteredModel) -> str:
    """Points the gateway at the champion and waits until it answers."""
    champion = read_ref(job.store, job.recipe.name, "champion")
    if champion is None:
        job.console.print("[bold]serving[/]      nothing to serve: no model has passed the gate")
        return ""
    version = model.version if champion.digest == job.made["model"].digest else f"previous-{champion.digest[:8]}"
    entry = Deployed.of(job.recipe.name, version, champion)
    job.timed("serving", lambda: deploy(entry, job.store, job.settings.gateway_url, job.recipe.serving))
    create_link_artifact(f"{job.settings.gateway_url}/v1", "OpenAI-compatible endpoint", key="endpoint")
    return entry.name


def open_job(recipe: str, data: str | None, evaluation_data: str | None, overrides: list[str], again: bool) -> Job:
    """Checks every parameter before any work and opens the store.

    Raises:
        ConfigError: naming the parameter.
    """
    logger = get_run_logger()
    settings = load_settings()
    console = _console(logger)
    chosen, notes = resolve_recipe(recipe, data, evaluation_data, overrides)
    for note in notes:
        console.print(note)
    return Job(settings, chosen, Store(settings.store), console, logger, again=again)


def finish(job: Job, passed: bool, model: registry.RegisteredModel) -> State[Any]:
    """The run's report in Prefect, and its state: a rejection is a named Completed state."""
    summary = summarise(job, passed, model)
    create_markdown_artifact(markdown(summary), key="report", description=f"{job.recipe.name}: what was made")
    if not passed:
        return Completed(name="GateRejected", message="; ".join(summary.reasons), data=summary.model_dump(mode="json"))
    return Completed(message=f"{job.recipe.name} is served", data=summary.model_dump(mode="json"))


def _console(logger: logging.Logger | logging.LoggerAdapter) -> Console:
    return Console(file=sys.stdout, highlight=False)
