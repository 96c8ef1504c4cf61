"""The steps of `pretrain` in order: stage, config and inputs of each. Used both to run and to plan."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flows.changes import config_changes, input_changes, version_change
from flows.inputs import resolve_recipe
from flows.recipe import Recipe
from stages.base.folder import HUB_FILES, list_base
from stages.base.stage import BaseConfig, base
from stages.base.tokenizer import tokenizer_of
from stages.corpus import CorpusConfig, Listing, corpus, list_files, source_listing
from stages.corpus.reading.unread import describe_unread
from stages.evaluation import (
    GENERAL_FILES,
    GeneralText,
    evaluation,
    package_descriptions,
    read_general,
    scored_sets,
    verdict,
)
from stages.hub import TOKENIZER_FILES, find_location
from stages.sample.stage import sample
from stages.store import (
    Artifact,
    Config,
    ConfigError,
    HasDigest,
    Plan,
    Stage,
    Store,
    StoreError,
    by_digest,
    read_ref,
)
from stages.tokens import tokens
from stages.training import TrainingConfig, training
from stages.training.export import export


@dataclass
class RunArtifacts:
    """A run's artifacts so far, by kind, and listings of its external files."""

    by_kind: dict[str, Artifact] = field(default_factory=dict)
    sources: dict[str, Listing] = field(default_factory=dict)
    sets: dict[str, Listing] = field(default_factory=dict)
    decontamination: dict[str, Listing] = field(default_factory=dict)
    tokenizer: Listing | None = None
    base: Listing | None = None
    """The folder of the model to go on from."""
    general: GeneralText | None = None

    def __getitem__(self, kind: str) -> Artifact:
        return self.by_kind[kind]

    def __setitem__(self, kind: str, artifact: Artifact) -> None:
        self.by_kind[kind] = artifact

    def __contains__(self, kind: str) -> bool:
        return kind in self.by_kind


@dataclass(frozen=True)
class Step:
    """One stage of the flow."""

    kind: str
    stage: Stage[Any]
    config: Callable[[Recipe, RunArtifacts], Config]
    inputs: Callable[[Recipe, RunArtifacts], Mapping[str, HasDigest]]
    needed: Callable[[Recipe], bool] = lambda recipe: True
    """Whether a recipe has this step."""


def _corpus_config(recipe: Recipe, artifacts: RunArtifacts) -> CorpusConfig:
    sources = {
        name: source.model_copy(update={"location": artifacts.sources[name].location})
        for name, source in recipe.corpus.sources.items()
    }
    sets = {name: artifacts.decontamination[name].location for name in recipe.corpus.decontamination.sets}
    decontamination = recipe.corpus.decontamination.model_copy(update={"sets": sets})
    return recipe.corpus.model_copy(update={"sources": sources, "decontamination": decontamination})


def _corpus_inputs(recipe: Recipe, artifacts: RunArtifacts) -> dict[str, HasDigest]:
    inputs: dict[str, HasDigest] = {f"source/{name}": listing for name, listing in artifacts.sources.items()}
    inputs.update({f"evaluation/{name}": listing for name, listing in artifacts.decontamination.items()})
    return inputs


def _tokens_inputs(recipe: Recipe, artifacts: RunArtifacts) -> dict[str, HasDigest]:
    inputs: dict[str, HasDigest] = {"corpus": artifacts["corpus"]}
    if "base" in artifacts:
        return inputs | {"tokenizer": tokenizer_of(artifacts["base"])}
    return inputs if artifacts.tokenizer is None else inputs | {"tokenizer": artifacts.tokenizer}


def _training_inputs(recipe: Recipe, artifacts: RunArtifacts) -> dict[str, HasDigest]:
    inputs: dict[str, HasDigest] = {"tokens": artifacts["tokens"]}
    return inputs | {"base": artifacts["base"]} if "base" in artifacts else inputs


def _export_inputs(recipe: Recipe, artifacts: RunArtifacts) -> dict[str, HasDigest]:
    """Adapters are merged into their base; other weights are whole in the run."""
    inputs: dict[str, HasDigest] = {"training": artifacts["training"], "tokens": artifacts["tokens"]}
    return inputs | {"base": artifacts["base"]} if recipe.training.model.lora else inputs


def _base_config(recipe: Recipe, artifacts: RunArtifacts) -> BaseConfig:
    return BaseConfig(base_license=recipe.training.model.base_license)


def _names_a_folder(base: str | None) -> bool:
    """Whether a base is brought in from a folder or the hub: one in the store is there already."""
    return base is not None and not _IN_STORE.fullmatch(base)


def find_base(recipe: Recipe, store: Store) -> Artifact | None:
    """The base that a recipe names by its digest; None for one that comes from a folder, or none.

    Raises:
        StoreError: the store has no such model, or several.
        ConfigError: it has a digest of a file, too.
    """
    name = recipe.training.model.base
    if name is None or not _IN_STORE.fullmatch(name):
        return None
    if recipe.training.model.base_sha256 is not None:
        raise ConfigError(f"{BASE}_sha256: {BASE} {name} is named by its digest already; leave {BASE}_sha256 out")
    return by_digest(store, name)


def _base_inputs(recipe: Recipe, artifacts: RunArtifacts) -> dict[str, HasDigest]:
    assert artifacts.base is not None, "inputs are listed first"
    return {"folder": artifacts.base}


def evaluation_inputs(recipe: Recipe, artifacts: RunArtifacts, of: Artifact) -> dict[str, HasDigest]:
    """Inputs for scoring the model `of` on the recipe's sets and the corpus's held-out documents."""
    inputs: dict[str, HasDigest] = {"model": of, "tokens": artifacts["tokens"]}
    inputs.update({f"set/{name}": artifacts.sets[name] for name in scored_sets(recipe.evaluation_sets)})
    return inputs | {"general": artifacts.general} if artifacts.general is not None else inputs


STEPS = (
    Step("sample", sample, lambda r, a: r.sample, lambda r, a: {}, lambda r: r.sample is not None),  # type: ignore[arg-type,return-value]
    Step("base", base, _base_config, _base_inputs, lambda r: _names_a_folder(r.training.model.base)),
    Step("corpus", corpus, _corpus_config, _corpus_inputs),
    Step("tokens", tokens, lambda r, a: r.tokens, _tokens_inputs),
    Step("training", training, lambda r, a: r.training, _training_inputs),
    Step("model", export, lambda r, a: r.export, _export_inputs),
    Step(
        "evaluation",
        evaluation,
        lambda r, a: r.evaluation,
        lambda r, a: evaluation_inputs(r, a, a["model"]),
    ),
    Step(
        "verdict",
        verdict,
        lambda r, a: r.gate,
        lambda r, a: (
            {"candidate": a["evaluation"]}
            | ({"champion": a["champion-evaluation"]} if "champion-evaluation" in a else {})
            | ({"base": a["base-evaluation"]} if "base-evaluation" in a else {})
        ),
    ),
)
SECTIONS = {"verdict": "gate", "model": "export", "base": "training.model"}
"""Sections of the recipe that have another name than their stage."""
BASE = "training.model.base"
_IN_STORE = re.compile(r"(model|base)/[0-9a-f]{8,64}")
STEP = {step.kind: step for step in STEPS}


def list_inputs(recipe: Recipe, artifacts: RunArtifacts) -> None:
    """Lists the external files as they are now; at every run, since the fingerprint depends on their content."""
    sample_folder = artifacts["sample"].local() if "sample" in artifacts else None

    def place(location: str) -> str:
        if sample_folder is None or not location.startswith("sample://"):
            return location
        return str(sample_folder / location.removeprefix("sample://"))

    artifacts.sources = {
        name: source_listing(source.model_copy(update={"location": place(source.location)}))
        for name, source in recipe.corpus.sources.items()
    }
    artifacts.sets = {name: list_files(place(location)) for name, location in recipe.evaluation_sets.items()}
    artifacts.decontamination = {
        name: list_files(place(location)) for name, location in recipe.corpus.decontamination.sets.items()
    }
    if recipe.tokens.tokenizer is not None:
        artifacts.tokenizer = list_files(find_location("tokens.tokenizer", recipe.tokens.tokenizer), TOKENIZER_FILES)
    if recipe.evaluation.general is not None:
        artifacts.general = read_general(list_files(recipe.evaluation.general, GENERAL_FILES))
    elif recipe.training.model.base is not None:
        artifacts.general = package_descriptions()
    named = recipe.training.model.base
    if named is not None and _names_a_folder(named):
        artifacts.base = list_base(find_location(BASE, named, HUB_FILES), recipe.training.model.base_sha256)


def unread_notes(artifacts: RunArtifacts) -> list[str]:
    """What the sources' folders hold that is not read, as of this run: a line for each source and reason."""
    return [
        f"source {name}: not read: {line}"
        for name, listing in artifacts.sources.items()
        for line in describe_unread(listing.unread)
    ]


@dataclass(frozen=True)
class Planned:
    """One line of `--dry-run`."""

    kind: str
    state: str
    """`cached`, `would run`, or `would run after X`: its fingerprint is not known before X is built."""
    plan: Plan | None
    why: tuple[str, ...] = ()
    """Why it would run: changes since the recipe's ref was set, and the stage that it waits for."""


def plan_steps(
    recipe: Recipe, store: Store, force_new_run: bool = False, artifacts: RunArtifacts | None = None
) -> list[Planned]:
    """Which stages are cached, which would run, and why; runs nothing.

    Args:
        artifacts: takes what is found: the listings of external files and the cached artifacts.
    """
    artifacts = RunArtifacts() if artifacts is None else artifacts
    out: list[Planned] = []
    missing = ""
    if (stored := find_base(recipe, store)) is not None:
        artifacts["base"] = stored
    for step in STEPS:
        if step.kind == "sample" and recipe.sample is None:
            list_inputs(recipe, artifacts)
        if not step.needed(recipe):
            continue
        if missing:
            why = (f"after {missing}", *_own_changes(step, recipe, store))
            out.append(Planned(step.kind, f"would run after {missing}", None, why))
            continue
        if step.kind == "verdict":
            champion = read_ref(store, recipe.name, "champion")
            if champion and champion.digest == artifacts["model"].digest:
                out.append(Planned("verdict", "cached: it is the champion", None))
                continue
            first = _find_scores(
                recipe, store, artifacts, {"champion": champion, "base": artifacts.by_kind.get("base")}
            )
            if first:
                out.append(Planned("verdict", f"would run {first}", None, (first, *_own_changes(step, recipe, store))))
                continue
        into = step.inputs(recipe, artifacts)
        plan = step.stage.plan(step.config(recipe, artifacts), into, store, force_new_run=force_new_run)
        if plan.done is None:
            out.append(Planned(step.kind, "would run", plan, _reasons(step, recipe, store, plan, into, force_new_run)))
            missing = step.kind
            continue
        out.append(Planned(step.kind, "cached", plan))
        artifacts[step.kind] = plan.done
        if step.kind == "sample":
            list_inputs(recipe, artifacts)
    return out


def _find_scores(recipe: Recipe, store: Store, artifacts: RunArtifacts, models: Mapping[str, Artifact | None]) -> str:
    """Finds the evaluations of the models that the candidate is compared with; if one is missing, what has to run."""
    for name, model in models.items():
        if model is None:
            continue
        scores = evaluation.plan(recipe.evaluation, evaluation_inputs(recipe, artifacts, model), store).done
        if scores is None:
            return f"after the {name}'s evaluation"
        artifacts[f"{name}-evaluation"] = scores
    return ""


def recipe_tokens(recipe: str, overrides: Sequence[str], store: Store) -> tuple[TrainingConfig, Artifact]:
    """A recipe's training config and its cached tokens. Runs nothing.

    Raises:
        StoreError: the tokens are not built yet.
    """
    chosen, _ = resolve_recipe(recipe, overrides=overrides)
    for planned in plan_steps(chosen, store):
        if planned.state != "cached":
            break
        if planned.kind == "tokens" and planned.plan and planned.plan.done:
            return chosen.training, planned.plan.done
    raise StoreError(
        f"the tokens of {chosen.name} are not built: {planned.kind} {planned.state} "
        f"({'; '.join(planned.why)}); `headwater run {recipe}` builds them, and prints the plan before it trains"
    )


def _before(step: Step, recipe: Recipe, store: Store) -> tuple[Artifact | None, tuple[str, ...]]:
    """The artifact that the recipe's ref points at; if there is none, the reason."""
    try:
        found = read_ref(store, recipe.name, step.kind)
    except StoreError:
        return None, ("its earlier artifact is missing or has changed",)
    return found, () if found else ("never built",)


def _own_changes(step: Step, recipe: Recipe, store: Store) -> tuple[str, ...]:
    """A stage's changes that do not depend on the stages before it."""
    before, none = _before(step, recipe, store)
    if before is None:
        return none
    section = SECTIONS.get(step.kind, step.kind)
    # The recipe's own section: the step's config differs from it only in locations, which are not in the fingerprint.
    config = _base_config(recipe, RunArtifacts()) if step.kind == "base" else getattr(recipe, section)
    return (*version_change(step.stage, before), *config_changes(section, config, before))


def _reasons(
    step: Step, recipe: Recipe, store: Store, plan: Plan, inputs: Mapping[str, HasDigest], force_new_run: bool
) -> tuple[str, ...]:
    before, _ = _before(step, recipe, store)
    why = _own_changes(step, recipe, store)
    if before is not None:
        into = input_changes(inputs, before)
        # A source that is added or removed is both a setting and an input: reported once.
        reported = {f".{line.split(' ', 1)[-1]}" for line in into if line.endswith((": added", ": removed"))}
        why = (*(line for line in why if not line.endswith(tuple(reported))), *into)
    if not step.stage.separate_runs:
        return why or ("its artifact is missing",)
    if store.list(f"{plan.folder}/events") or store.exists(f"{plan.folder}/events.jsonl"):
        return (*why, "resumes its unfinished run")
    return why or (("a new run was requested with --force-new-run",) if force_new_run else ("its artifact is missing",))
