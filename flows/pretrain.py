"""The main job: documents in, a served, evaluated and registered model out.

Read `pretrain` from top to bottom: one task per stage. Every stage whose artifact is cached is skipped, so a run can be
killed at any time and started again.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

from prefect import flow, get_run_logger, runtime, task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed, State
from pydantic import Field
from rich.console import Console

from flows import present, registry
from flows.artifacts import remove_duplicates, show_link, show_report, show_table
from flows.cancel import confirm_cancel, interrupt_on_cancel
from flows.inputs import check_parameters, resolve_recipe
from flows.job import Job
from flows.plan_table import plan_records
from flows.report import GAIN, markdown, summarise
from flows.steps import evaluation_inputs, find_base, list_inputs, unread_notes
from infra.settings import load_settings
from serving.deploy import deploy, start_canary, stop_canary
from serving.gateway.keys import read_key
from serving.record import deployment_of
from stages.corpus import summary_rows
from stages.corpus.reading.unread import printable_name
from stages.evaluation import beside_base, evaluation, preload, reasons, table
from stages.store import Store, read_ref, write_ref
from stages.store.credentials import CredentialsError, redact
from stages.tokens.fertility import fertility_rows
from stages.training.cluster import driver as launch
from stages.training.preflight.plan import plan_of

# The form and the server check the patterns before a run is created; the flow checks the rest.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+_-]*$|^/.+[.]ya?ml$")]
# A URL with a password does not match, so it is refused before it is recorded. (`github://owner:repository@revision`.)
Place = Annotated[
    str, Field(max_length=1000, pattern=r"^$|^/|^github://|^[A-Za-z0-9+.-]+://([^/?#@:]*@)?[^/?#@]*([?#/]|$)")
]
Override = Annotated[str, Field(pattern=r"^[^=\s]+=")]


def run_name() -> str:
    """Puts the recipe before the name that Prefect or a person gave: `biomed gorgeous-dingo`."""
    given, parameters = str(runtime.flow_run.name), runtime.flow_run.parameters
    prefix = Path(parameters["recipe"]).stem + (
        f"+{printable_name(Path(redact(parameters['data'])).name)}" if parameters["data"] else ""
    )
    return given if given.startswith(prefix) else f"{prefix} {given}"


@flow(
    name="pretrain",
    flow_run_name=run_name,
    persist_result=False,
    validate_parameters=True,
    on_crashed=[confirm_cancel],
)
def pretrain(
    recipe: Name = "biomed",
    data: Place = "",
    evaluation_data: Place = "",
    overrides: list[Override] = [],  # noqa: B006 (the form in the UI shows the default)
    force_new_run: bool = False,
) -> State[Any]:
    """Builds a language model from documents: corpus, tokens, training, evaluation, gate, registry, endpoint.

    Args:
        recipe: A name from `headwater recipes`, or the absolute path of a recipe's YAML file.
        data: Your own documents instead of the recipe's: the absolute path or URL of a folder.
        evaluation_data: Your own question sets: the absolute path or URL of a folder of JSON Lines files.
        overrides: Recipe settings to change, each as section.key=value, for example training.steps=200.
        force_new_run: Train a new run although the same plan has a finished one.
    """
    job = open_job(recipe, data, evaluation_data, overrides, force_new_run)
    with interrupt_on_cancel(UUID(runtime.flow_run.id)), job:
        if job.recipe.sample:
            build_sample(job)
        list_inputs(job.recipe, job.artifacts)
        if not data:  # the notes about a person's own folder have everything in it
            job.note(unread_notes(job.artifacts))
        if job.recipe.training.model.base:
            import_base(job)
        build_corpus(job)
        build_tokens(job)
        train(job)
        export_model(job)
        candidate = register(job)
        evaluate(job, candidate)
        passed = judge(job, candidate)
        serve(job)
        return finish(job, passed, candidate)


@task(name="sample", cache_policy=NO_CACHE)
def build_sample(job: Job) -> str:
    """The embedded synthetic documents and question sets."""
    return job.build("sample").id


@task(name="base", cache_policy=NO_CACHE)
def import_base(job: Job) -> str:
    """The model to go on from: checked and copied into the store, unless it is one of the store's own."""
    stored = find_base(job.recipe, job.store)
    if stored is None:
        return job.build("base").id
    job.artifacts["base"] = stored
    return stored.id


@task(name="corpus", cache_policy=NO_CACHE)
def build_corpus(job: Job) -> str:
    """Policy, deduplication, edits, filters, decontamination, held-out split."""
    if not job.plan("corpus").done:
        start_early(job)
    artifact = job.build("corpus")
    columns, rows = summary_rows(artifact)
    show_table("corpus", present.records(columns, rows), "Documents in, removed by each rule, and kept")
    return artifact.id


@task(name="tokens", cache_policy=NO_CACHE)
def build_tokens(job: Job) -> str:
    """Tokenizer and shards."""
    artifact = job.build("tokens")
    show_table("tokens", fertility_rows(artifact), "Tokens by source, and bytes per token compared with GPT-2's")
    return artifact.id


@task(name="training", cache_policy=NO_CACHE)
def train(job: Job) -> str:
    """Pretraining on Ray Train with FSDP2; metrics go to MLflow while it runs."""
    job.mlflow_ready()
    planned = plan_of(job.artifacts["tokens"], job.recipe.training)
    show_table("plan", plan_records(planned), "The plan of the training: tokens, shares and epochs by phase and source")
    if not job.plan("training").done:
        start_early(job)
        job.background.submit(preload)
    tags = {"headwater.recipe": job.recipe.name, "headwater.tokens": job.artifacts["tokens"].digest}
    sink = lambda plan: registry.MlflowSink(job.settings.mlflow_url, job.recipe.name, job.store, plan.folder, tags)  # noqa: E731
    return job.build("training", (sink,)).id


@task(name="model", cache_policy=NO_CACHE)
def export_model(job: Job) -> str:
    """Stock Hugging Face weights."""
    return job.build("model").id


@task(name="register", cache_policy=NO_CACHE)
def register(job: Job) -> registry.RegisteredModel:
    """Registers a version in MLflow with the alias `candidate`. Its engine starts while it is evaluated."""
    job.mlflow_ready()
    url, name = job.settings.mlflow_url, job.recipe.name
    model: registry.RegisteredModel = job.timed(
        "register", lambda: registry.register(url, name, job.store, job.artifacts.by_kind)
    )
    show_link("mlflow-model", registry.model_url(url, model), f"{name} version {model.version} in MLflow")
    show_link("mlflow-run", registry.run_url(url, url, model.run_id), "Curves and data of the training run in MLflow")
    start_canary(deployment_of(job.artifacts["model"], name, model.version, job.recipe.serving), job.store)
    return model


@task(name="evaluation", cache_policy=NO_CACHE)
def evaluate(job: Job, candidate: registry.RegisteredModel) -> str:
    """Bits per byte on held-out documents, and the question sets, with baselines; the metrics go to MLflow. A base is
    measured on the same, so that gain and loss stand side by side."""
    artifact = job.build("evaluation")
    rows = present.records(*table(artifact))
    show_table("evaluation", rows, "Scores on held-out documents and question sets, with baselines")
    registry.log_evaluation(job.settings.mlflow_url, candidate, artifact, rows)
    if "base" in job.artifacts:
        inputs = evaluation_inputs(job.recipe, job.artifacts, job.artifacts["base"])
        job.artifacts["base-evaluation"] = job.run(evaluation, job.recipe.evaluation, inputs, "base scores")
        gain = present.records(*beside_base(artifact, job.artifacts["base-evaluation"]))
        show_table("gain", gain, GAIN)
    return artifact.id


@task(name="verdict", cache_policy=NO_CACHE)
def judge(job: Job, candidate: registry.RegisteredModel) -> bool:
    """The gate: decides whether the candidate replaces the champion. True if it is the champion afterwards."""
    model, name = job.artifacts["model"], job.recipe.name
    champion = read_ref(job.store, name, "champion")
    if champion and champion.digest == model.digest:
        verdict = read_ref(job.store, name, "verdict")
        passed = True
    else:
        if champion:  # scored on the candidate's sets, so that both are compared on the same items
            inputs = evaluation_inputs(job.recipe, job.artifacts, champion)
            job.artifacts["champion-evaluation"] = job.run(evaluation, job.recipe.evaluation, inputs, "champion")
        verdict = job.build("verdict")
        passed = reasons(verdict).accepted
    if passed:
        write_ref(job.store, name, "champion", model)
    if verdict:
        job.artifacts["verdict"] = verdict
        registry.promote(job.settings.mlflow_url, candidate, verdict, passed)
    return passed


@task(name="serving", cache_policy=NO_CACHE)
def serve(job: Job) -> str:
    """Deploys the champion to the gateway and waits until it answers."""
    champion = read_ref(job.store, job.recipe.name, "champion")
    if champion is None:
        stop_canary(job.store)
        job.console.print("[bold]serving[/]      nothing to serve: no model has passed the gate")
        return ""
    registered = registry.find(job.settings.mlflow_url, job.recipe.name, champion.digest)
    # Without MLflow's record (if its database was removed, for example) the digest identifies the version.
    version = registered.version if registered else champion.digest[:8]
    entry = deployment_of(champion, job.recipe.name, version, job.recipe.serving)
    key = read_key(job.settings.api_key_file)
    job.timed("serving", lambda: deploy(entry, job.store, job.settings.gateway_url, key))
    show_link("endpoint", f"{job.settings.gateway_url}/v1", f"OpenAI-compatible endpoint of {entry.name}")
    return entry.name


def start_early(job: Job) -> None:
    """Starts Ray (10 to 20 s) in the background of the stages before training. Idempotent."""
    if job.recipe.training.parallelism.workers:
        # loguru, which datatrove logs by, takes its locks around every fork, and Ray's start forks in a thread.
        # Imported during such a fork, as the corpus stage might, it would release a lock that another thread holds.
        import loguru  # noqa: F401

        launch.prestart(job.recipe.training.parallelism.workers)


def open_job(recipe: str, data: str, evaluation_data: str, overrides: list[str], force_new_run: bool) -> Job:
    """Checks every parameter before any work and opens the store.

    Raises:
        ConfigError: naming the parameter.
        CredentialsError: a parameter has credentials in it, which Prefect has recorded by now.
    """
    try:
        check_parameters(recipe, data, evaluation_data, overrides)
    except CredentialsError as error:
        raise CredentialsError(
            f"{error}. Prefect has recorded this flow run's parameters in its database, before they could be checked: "
            "revoke the credentials, then delete the flow run"
        ) from None
    logger = get_run_logger()
    settings = load_settings()
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    chosen, notes = resolve_recipe(recipe, data or None, evaluation_data or None, overrides)
    job = Job(settings, chosen, Store(settings.store), console, logger, force_new_run=force_new_run)
    job.note(notes)
    return job


def finish(job: Job, passed: bool, model: registry.RegisteredModel) -> State[Any]:
    """Publishes the run's report in Prefect and returns its state: a rejection is a Completed state of its own name."""
    summary = summarise(job, passed, model)
    show_report(markdown(summary), f"{job.recipe.name}: the model, its data and its scores")
    remove_duplicates()
    if not passed:
        return Completed(name="GateRejected", message="; ".join(summary.reasons), data=summary.model_dump(mode="json"))
    return Completed(message=f"{job.recipe.name} is served", data=summary.model_dump(mode="json"))
