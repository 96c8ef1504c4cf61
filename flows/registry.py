"""MLflow: live training metrics, one LoggedModel per model, registry versions with aliases.

The store (refs and manifests) is authoritative; MLflow's records are rewritten from it, idempotently. Weights never
pass through the MLflow server.
"""

from __future__ import annotations

import json
import logging
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelInput,
    LoggedModelStatus,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException

from stages.store import Artifact, EventLog, HeadwaterError, Store
from stages.store.events import Event
from stages.training.metrics.history import STEPS

logging.getLogger("mlflow").setLevel(logging.WARNING)
TRAINING_METRICS = tuple(name for name in STEPS.names if name not in ("step", "seconds"))
"""Fields of a step's event that become metrics. A step leaves out those that it did not measure."""


@dataclass(frozen=True)
class RegisteredModel:
    """One version of a registered model."""

    name: str
    version: str
    model_id: str
    run_id: str


class MlflowSink:
    """Sends a training run's events to MLflow from a saved offset, so that none arrives twice."""

    def __init__(self, tracking_uri: str, recipe: str, store: Store, folder: str, tags: dict[str, str]):
        self.client = MlflowClient(tracking_uri)
        self.recipe, self.store, self.folder, self.tags = recipe, store, folder, tags

    def start(self, events: EventLog) -> int:
        return int(str(_read_state(self.store, self.folder).get("offset", 0)))

    def consume(self, events: list[Event], offset: int) -> None:
        run_id = open_run(self.client, self.recipe, self.store, self.folder, self.tags)
        metrics = [metric for event in events for metric in _metrics(event)]
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])
        for event in events:
            if event["type"] == "finished":
                self.client.set_terminated(run_id)
        _write_state(self.store, self.folder, {"run_id": run_id, "offset": offset})

    def close(self) -> None:
        """Nothing to close: the `finished` event ends the MLflow run."""


def open_run(client: MlflowClient, recipe: str, store: Store, folder: str, tags: dict[str, str]) -> str:
    """The MLflow run of a training folder: the one it has, else a new one in the recipe's experiment."""
    state = _read_state(store, folder)
    if "run_id" in state:
        try:
            client.get_run(state["run_id"])
            return str(state["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    run = client.create_run(_experiment(client, recipe), run_name=folder.replace("/", " "), tags=tags)
    state_now = {"run_id": run.info.run_id, "offset": 0}
    if state:
        _write_state(store, folder, state_now)
    elif not store.create(_state_name(folder), json.dumps(state_now).encode()):
        client.delete_run(run.info.run_id)  # another process forwards the same training and created its run first
        return str(_read_state(store, folder)["run_id"])
    return str(run.info.run_id)


def register(tracking_uri: str, recipe: str, store: Store, artifacts: dict[str, Artifact]) -> RegisteredModel:
    """Registers `artifacts["model"]` as candidate, with its data and parameters; the same model only once.

    Args:
        artifacts: corpus, tokens, training and model artifacts by kind.
    """
    client = MlflowClient(tracking_uri)
    model, training = artifacts["model"], artifacts["training"]
    known = find(tracking_uri, recipe, model.digest)
    if known:
        # A run that was killed in between has created the version without setting the alias.
        if int(client.get_registered_model(recipe).aliases.get("candidate", 0)) < int(known.version):
            client.set_registered_model_alias(recipe, "candidate", known.version)
        return known
    run_id = open_run(client, recipe, store, training.folder, {"headwater.training": training.digest})
    params = {
        f"{kind}.{key}": value
        for kind in ("training", "tokens")
        for key, value in _flat(artifacts[kind].manifest.resolved_config)
    }
    client.log_batch(
        run_id,
        params=[Param(key, str(value)[:500]) for key, value in sorted(params.items())][:100],
        tags=[RunTag(f"headwater.{kind}", artifact.digest) for kind, artifact in artifacts.items()],
    )
    tags = {"headwater.digest": model.digest, "headwater.uri": store.where(model.folder)}
    logged = _logged(client, recipe, model.digest) or client.create_logged_model(
        experiment_id=_experiment(client, recipe),
        name=_model_name(recipe),
        source_run_id=run_id,
        tags=tags,
        params={key: str(value) for key, value in sorted(params.items())[:50]},
        model_type="causal-lm",
    )
    inputs = [_dataset("corpus", artifacts["corpus"], "training"), _dataset("tokens", artifacts["tokens"], "training")]
    client.log_inputs(run_id, datasets=inputs, models=[LoggedModelInput(logged.model_id)])
    client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    if not _has_registered_model(client, recipe):
        client.create_registered_model(recipe, description=f"Built by Headwater from the recipe {recipe}")
    version = client.create_model_version(
        recipe,
        source=f"models:/{logged.model_id}",
        run_id=run_id,
        model_id=logged.model_id,
        tags=tags,
        description=f"weights at {store.where(model.folder)}/weights, digest {model.digest}",
    )
    client.set_registered_model_alias(recipe, "candidate", version.version)
    return RegisteredModel(recipe, str(version.version), logged.model_id, run_id)


def find(tracking_uri: str, recipe: str, digest: str) -> RegisteredModel | None:
    """The registered version of the model with this digest; None if there is none."""
    client = MlflowClient(tracking_uri)
    if not _has_registered_model(client, recipe):
        return None
    for version in client.search_model_versions(f"name = '{recipe}'"):
        if version.tags.get("headwater.digest") == digest:
            model_id = version.model_id or version.source.removeprefix("models:/")
            return RegisteredModel(recipe, str(version.version), model_id, version.run_id or "")
    return None


def log_evaluation(
    tracking_uri: str, model: RegisteredModel, evaluation: Artifact, table: list[dict[str, object]]
) -> None:
    """Logs an evaluation's metrics at the model, once, with the digests of the data that they were measured on."""
    client = MlflowClient(tracking_uri)
    version = client.get_model_version(model.name, model.version)
    if version.tags.get("headwater.evaluation") == evaluation.digest:
        return
    _log_metrics(client, model, evaluation)
    if table:
        columns = {key: [row.get(key) for row in table] for key in table[0]}
        client.log_table(model.run_id, columns, "evaluation.json")
    client.set_model_version_tag(model.name, model.version, "headwater.evaluation", evaluation.digest)


def promote(tracking_uri: str, model: RegisteredModel, verdict: Artifact, accepted: bool) -> None:
    """Rewrites the aliases from the gate's verdict: champion and previous if accepted; the verdict's tag either way."""
    client = MlflowClient(tracking_uri)
    client.set_model_version_tag(model.name, model.version, "headwater.verdict", "accepted" if accepted else "rejected")
    client.log_text(model.run_id, verdict.read("verdict.json").decode(), "verdict.json")
    if not accepted:
        return
    champion = client.get_registered_model(model.name).aliases.get("champion")
    if str(champion) == model.version:
        return
    if champion:
        client.set_registered_model_alias(model.name, "previous", champion)
    client.set_registered_model_alias(model.name, "champion", model.version)


def model_url(base_url: str, model: RegisteredModel) -> str:
    """Where a person sees the version in the MLflow UI."""
    return f"{base_url}/#/models/{model.name}/versions/{model.version}"


def run_url(base_url: str, client_uri: str, run_id: str) -> str:
    """Where a person sees the run's curves in the MLflow UI."""
    run = MlflowClient(client_uri).get_run(run_id)
    return f"{base_url}/#/experiments/{run.info.experiment_id}/runs/{run_id}"


def _has_registered_model(client: MlflowClient, name: str) -> bool:
    try:
        client.get_registered_model(name)
        return True
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False


def _logged(client: MlflowClient, recipe: str, digest: str) -> LoggedModel | None:
    """The LoggedModel of a run that was killed before it created the version, if any."""
    found = client.search_logged_models([_experiment(client, recipe)], f"tags.`headwater.digest` = '{digest}'")
    return found[0] if found else None


def _experiment(client: MlflowClient, recipe: str) -> str:
    found = client.get_experiment_by_name(recipe)
    if found is None:
        try:
            return str(client.create_experiment(recipe))
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        found = client.get_experiment_by_name(recipe)  # another run created it first
        if found is None:
            raise HeadwaterError(f"MLflow: an experiment {recipe!r} was deleted; restore it, or delete it for good")
    return str(found.experiment_id)


def _dataset(name: str, artifact: Artifact, context: str) -> DatasetInput:
    dataset = Dataset(
        name=name,
        digest=artifact.digest[:36],
        source_type="local",
        source=json.dumps({"uri": artifact.store.where(artifact.folder), "digest": artifact.digest}),
        profile=json.dumps(artifact.manifest.counts),
    )
    return DatasetInput(dataset, tags=[InputTag("mlflow.data.context", context)])


def _log_metrics(client: MlflowClient, model: RegisteredModel, evaluation: Artifact) -> None:
    now = int(evaluation.manifest.finished.timestamp() * 1000)
    digests = {role.partition("/")[2]: value for role, value in evaluation.manifest.inputs.items() if "/" in role}
    metrics = []
    for name, value in sorted(evaluation.manifest.metrics.items()):
        dataset = name.partition("/")[0] if "/" in name else "heldout"
        digest = digests.get(dataset, evaluation.manifest.inputs.get("tokens", ""))
        metrics.append(
            Metric(
                _metric_name(name),
                float(value),
                now,
                0,
                model_id=model.model_id,
                dataset_name=dataset if digest else None,
                dataset_digest=digest[:36] if digest else None,
                run_id=model.run_id,
            )
        )
    client.log_batch(model.run_id, metrics=metrics)


def _model_name(recipe: str) -> str:
    """MLflow refuses a few characters in a LoggedModel's name that it allows in a registered model's."""
    return "".join(c if c not in "/:.%\"'" else "-" for c in recipe)


def _metric_name(name: str) -> str:
    return f"evaluation/{_allowed(name)}"


def _allowed(name: str) -> str:
    """`name` without the characters that MLflow refuses in a metric's name."""
    return "".join(c if c.isalnum() or c in "_-. /" else "_" for c in name)


def _metrics(event: Event) -> list[Metric]:
    at = int(event["time"] * 1000)
    values: dict[str, float] = {}
    if event["type"] == "step" and "loss" in event:
        values = {name: event[name] for name in TRAINING_METRICS if name in event}
        values |= {f"tokens/{_allowed(source)}": n for source, n in event.get("tokens_by_source", {}).items()}
    elif event["type"] == "validation":
        values = {"heldout_bits_per_byte": event["bits_per_byte"]}
        values |= {f"bits_per_byte/{_allowed(source)}": value for source, value in event.get("by_source", {}).items()}
    return [Metric(name, float(value), at, int(event["step"])) for name, value in values.items()]


def _flat(config: dict[str, object], prefix: str = "") -> list[tuple[str, object]]:
    out: list[tuple[str, object]] = []
    for key, value in config.items():
        if isinstance(value, dict):
            out += _flat(value, f"{prefix}{key}.")
        else:
            out.append((f"{prefix}{key}", value))
    return out


def _state_name(folder: str) -> str:
    return f"forwarded/{folder.replace('/', '-')}.json"


def _read_state(store: Store, folder: str) -> dict[str, object]:
    try:
        return dict(store.read_json(_state_name(folder)))
    except FileNotFoundError:
        return {}


def _write_state(store: Store, folder: str, state: dict[str, object]) -> None:
    store.put(_state_name(folder), json.dumps(state).encode())
