"""Finds the training run that a name on the command line means, with its config, tokens and batch log."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import ValidationError

from flows.renamed_keys import upgrade_training_config
from stages.provenance.batch_log import EVENT_TYPES, BatchLog
from stages.store import Artifact, EventLog, Store, StoreError, all_artifacts, by_digest, list_refs, load, read_ref
from stages.store.events import Event
from stages.store.names import check_folder
from stages.training.config import TrainingConfig
from stages.training.preflight.plan import PLAN


@dataclass(frozen=True)
class TracedRun:
    """A training run, finished or not."""

    name: str
    """`training/` and the first digits of its digest, or its folder while it has none."""
    folder: str
    """The run's folder in the store."""
    config: TrainingConfig
    tokens: str
    """Folder of the tokens artifact in the store."""
    tokens_digest: str
    base: str
    """Folder of the model that it went on from; empty: it started from scratch."""
    log: BatchLog


def find_run(store: Store, name: str) -> TracedRun:
    """The run that a name means.

    Args:
        name: a recipe (its newest finished run, or the only unfinished one on its tokens), a ref such as
            `biomed/champion` (the run that the model came from), the start of an artifact's digest or fingerprint, or a
            run's folder (`training/...`), which may be unfinished.

    Raises:
        StoreError: no such run, several, or one by an incompatible version.
    """
    folder = _folder(store, name)
    events = EventLog(store, folder).read(only=(*EVENT_TYPES, PLAN), newest=("step",))[0]
    artifact, plan = load(store, folder), _plan(events)
    if plan:
        config, tokens, digest, base = plan["config"], plan["tokens"], plan["digest"], plan.get("base", "")
        try:
            for named in (tokens, base) if base else (tokens,):
                check_folder(named)
        except (TypeError, ValueError) as error:
            raise StoreError(f"{store.where(folder)}: its plan does not name its inputs: {error}") from error
    elif artifact:  # by a version that did not record the plan
        config, digest = artifact.manifest.resolved_config, artifact.manifest.inputs["tokens"]
        tokens, base = by_digest(store, f"tokens/{digest}").folder, ""
    else:
        raise StoreError(f"{store.where(folder)}: the run has not recorded its plan, so its data order is unknown")
    try:
        settings = TrainingConfig.model_validate(upgrade_training_config(config))
    except ValidationError as error:
        raise StoreError(f"{store.where(folder)}: its config is not valid in this version: {error}") from None
    log = BatchLog.from_events(events)
    return TracedRun(artifact.id if artifact else folder, folder, settings, tokens, digest, base, log)


def find_artifact(store: Store, name: str, kind: str) -> Artifact:
    """The artifact of one kind that a name means: a recipe's newest, a ref's, or by the start of its digest; where that
    is of another kind, its (indirect) input of this kind.

    Raises:
        StoreError: there is none, or there are several.
    """
    refs = list_refs(store)
    ref = next((ref for ref in (name.removeprefix("refs/"), f"{name}/{kind}") if ref in refs), None)
    recipe, _, last = (ref or "").rpartition("/")
    found = (read_ref(store, recipe, last) if ref else None) or by_digest(store, name)
    source = _input_of_kind(found, kind, {artifact.digest: artifact for artifact in all_artifacts(store)})
    if source is None:
        raise StoreError(f"{name!r} is {found.id}, and none of its inputs that still exist is a {kind} artifact")
    return source


def _input_of_kind(artifact: Artifact, kind: str, known: Mapping[str, Artifact]) -> Artifact | None:
    """The artifact itself if it is of this kind, else its nearest (indirect) input of this kind."""
    if artifact.manifest.kind == kind:
        return artifact
    inputs = [known[digest] for digest in artifact.manifest.inputs.values() if digest in known]
    for source in sorted(inputs, key=lambda source: source.manifest.kind != kind):
        found = _input_of_kind(source, kind, known)
        if found:
            return found
    return None


def _folder(store: Store, name: str) -> str:
    """The folder of the training run. One without manifest is found by its folder's name, or by its recipe's tokens."""
    for place in (store.where(""), store.url):  # as messages show it
        name = name.removeprefix(place.rstrip("/") + "/").rstrip("/")
    every = [*store.folders("training")]
    if name in every:
        return name
    unfinished = [folder for folder in every if load(store, folder) is None]
    refs, last = list_refs(store), name.removeprefix("training/")
    if f"{name}/training" not in refs and f"{name}/tokens" in refs:
        digest = refs[f"{name}/tokens"]
        found = [folder for folder in unfinished if _digest_of(store, folder) == digest]
    else:
        found = [folder for folder in unfinished if last and folder.startswith(f"training/{last}")]
    if len(found) > 1:
        raise StoreError(f"{name!r} is ambiguous: {', '.join(found)}")
    return found[0] if found else find_artifact(store, name, "training").folder


def _digest_of(store: Store, folder: str) -> str:
    plan = _plan(EventLog(store, folder).read(only=(PLAN,))[0])
    return plan["digest"] if plan else ""


def _plan(events: list[Event]) -> Event | None:
    """The newest plan; a restarted run has several, all with the same order."""
    return next((event for event in reversed(events) if event["type"] == PLAN), None)
