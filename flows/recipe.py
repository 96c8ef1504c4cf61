"""The recipe: one YAML file, the whole truth about a model to build.

Its sections are the stages' own configurations. Unknown keys are refused with the nearest right name, values are
checked where they stand, and `headwater recipes --schema` prints the JSON schema that editors use.
"""

from __future__ import annotations

import difflib
import os
import re
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, Field, ValidationError, model_validator

from flows.renamed_keys import GROUP_NOW, RENAMED_KEYS
from serving.config import ServingConfig
from stages.corpus import CorpusConfig
from stages.corpus.reading.names import make_name
from stages.evaluation import EvaluationConfig, GatePolicy
from stages.sample.stage import SampleConfig
from stages.store import Config, ConfigError, runtime_field
from stages.store.credentials import CredentialsError, find_credentials, redact, refuse_credentials
from stages.tokens import TokensConfig
from stages.tokens.mixture import BLOCK
from stages.training import TrainingConfig
from stages.training.export import ExportConfig

RECIPES = Path(__file__).parent / "recipes"
LONGEST_NAME = 63
"""Most characters of a model's name."""


class StorageConfig(Config):
    """How the recipe's `s3://` locations are reached, where the environment does not say. Keys never stand here."""

    endpoint_url: str | None = runtime_field(None, pattern=r"^https?://")
    """Address of an S3 that is not Amazon's. AWS_ENDPOINT_URL has precedence."""
    region: str | None = runtime_field(None)
    """Region. AWS_DEFAULT_REGION has precedence."""
    profile: str | None = runtime_field(None)
    """Section of `~/.aws/credentials` that holds the keys. AWS_PROFILE has precedence."""

    def apply(self) -> None:
        """Sets the environment of this process, and of what it starts, as far as it is not set."""
        values = {
            "AWS_ENDPOINT_URL": self.endpoint_url,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_PROFILE": self.profile,
        }
        for name, value in values.items():
            if value is not None:
                os.environ.setdefault(name, value)


class Recipe(Config):
    """One model to build, from its documents to its endpoint."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9+._-]{0,62}$")
    """Name of the model: of its refs, its registered model and its endpoint."""
    description: str = ""
    """One or two sentences for people."""
    storage: StorageConfig = StorageConfig()
    """Endpoint, region and profile of `s3://` locations."""
    sample: SampleConfig | None = None
    """Make the embedded synthetic sample first; locations `sample://...` point into it."""
    evaluation_sets: dict[str, str] = {}
    """Question sets by name: where each JSON Lines file lies (absolute path, URL or `sample://...`)."""
    corpus: CorpusConfig
    """Sources, policy, filters, deduplication, decontamination and the held-out part."""
    tokens: TokensConfig = TokensConfig()
    """Tokenizer and shards."""
    training: TrainingConfig
    """Model size, steps, data, optimizer, schedule, parallelism, checkpoints, recovery."""
    export: ExportConfig = ExportConfig()
    """The exported weights."""
    evaluation: EvaluationConfig = EvaluationConfig()
    """What the model is measured on."""
    gate: GatePolicy = GatePolicy()
    """What a candidate must show to become champion."""
    serving: ServingConfig = ServingConfig()
    """The endpoint."""
    example_prompts: list[str] = []
    """What the endpoint is asked at the end of a run, to show a real completion."""

    @model_validator(mode="after")
    def _sample_locations_need_a_sample(self) -> Recipe:
        places = [("evaluation_sets." + name, place) for name, place in self.evaluation_sets.items()]
        for name, place in self.corpus.decontamination.sets.items():
            places.append((f"corpus.decontamination.sets.{name}", place))
        places += [(f"corpus.sources.{name}.location", source.location) for name, source in self.corpus.sources.items()]
        for where, place in places:
            if place.startswith("sample://"):
                if self.sample is None:
                    raise ValueError(f"{where}: {place!r} needs a `sample:` section")
            elif "://" not in place and not os.path.isabs(place):
                raise ValueError(f"{where}: {place!r} is a relative path; give an absolute path or a URL")
        return self

    @model_validator(mode="after")
    def _a_base_brings_its_tokenizer(self) -> Recipe:
        if self.training.model.base is None:
            return self
        for key in ("tokenizer", "kmers"):
            if getattr(self.tokens, key) is not None:
                raise ValueError(f"tokens.{key}: training.model.base brings the tokenizer; leave tokens.{key} out")
        return self

    @model_validator(mode="after")
    def _mixtures_name_sources(self) -> Recipe:
        replay = self.training.data.replay
        if replay is not None and replay.source not in self.corpus.sources:
            known = ", ".join(self.corpus.sources)
            raise ValueError(
                f"training.data.replay.source: {replay.source!r} is no source of this recipe; there are {known}"
            )
        for number, phase in enumerate(self.training.phases):
            where = f"training.data.phases.{number}" if self.training.data.phases else "training.data"
            repeat = phase.repeat if isinstance(phase.repeat, dict) else {}
            for key, named in (("weights", phase.weights or {}), ("repeat", repeat)):
                for name in named:
                    if name not in self.corpus.sources:
                        known = ", ".join(self.corpus.sources)
                        raise ValueError(f"{where}.{key}: {name!r} is no source of this recipe; there are {known}")
            drawn = sum(weight > 0 for weight in phase.weights.values()) if phase.weights else len(self.corpus.sources)
            if drawn > BLOCK:
                raise ValueError(
                    f"{where}: {drawn:,} sources; a mixture has at most {BLOCK:,}: put the files of several into one "
                    "folder, which can be one source"
                )
        return self

    @model_validator(mode="after")
    def _the_gate_asks_for_what_is_measured(self) -> Recipe:
        if self.gate.must_beat_markov and self.evaluation.markov_order is None:
            raise ValueError("gate.must_beat_markov: set evaluation.markov_order, the order of the model to beat")
        return self


def recipe_names() -> list[str]:
    """Names of the recipes that come with Headwater."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def load_recipe(name: str, overrides: Sequence[str] = (), changes: dict[str, Any] | None = None) -> Recipe:
    """Reads a recipe by name or by path, applies `changes` (merged) and then `overrides` (`key.path=value`), validates.

    Raises:
        ConfigError: naming the file, the key and, for an unknown key, the nearest right name.
        CredentialsError: naming the file and the key of a location that has credentials in it.
    """
    path = Path(name) if name.endswith((".yaml", ".yml")) else RECIPES / f"{name}.yaml"
    refuse_credentials("recipe", name)
    text = ""
    try:
        text = path.read_text()
        data = yaml.safe_load(text)
    except FileNotFoundError:
        near = difflib.get_close_matches(name, recipe_names(), 1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; there are: {', '.join(recipe_names())}"
        raise ConfigError(f"recipe {name!r} not found at {path}{hint}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        if find_credentials(text):  # the error repeats the line
            mark = getattr(error, "problem_mark", None)
            raise ConfigError(f"{path}: not valid YAML{f', line {mark.line + 1}' if mark else ''}") from None
        raise ConfigError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: a recipe is a mapping of sections, this is {type(data).__name__}")
    _merge(data, changes or {})
    for override in overrides:
        apply_override(data, override)
    return parse_recipe(data, str(path))


def parse_recipe(data: dict[str, Any], where: str) -> Recipe:
    """Validates a recipe's data; see `load_recipe`."""
    try:
        refuse_credentials("", data)
    except CredentialsError as error:
        raise CredentialsError(f"{where}: {error}") from None
    try:
        return Recipe.model_validate(data)
    except ValidationError as error:
        lines = [_explain(detail) for detail in _by_key(error.errors())]
        raise ConfigError(f"{where}: " + "\n  ".join(["the recipe is not valid:", *lines])) from None


def with_own_documents(recipe: Recipe, data: str, sources: dict[str, Any], sets: dict[str, str]) -> Recipe:
    """The same recipe on the user's own documents and question sets; it gets a name of its own, `recipe+folder`.

    Mixtures name the recipe's own sources, so these are drawn by size, and nothing is replayed; whoever wants shares
    writes a recipe.
    """
    content = recipe.model_dump(mode="json")
    content["name"] = own_name(recipe.name, data)
    content["description"] = f"{recipe.name}'s recipe on {data}"
    content["sample"] = None
    content["corpus"]["sources"] = {name: source.model_dump(mode="json") for name, source in sources.items()}
    content["corpus"]["decontamination"]["sets"] = sets
    content["evaluation_sets"] = sets
    mixing = content["training"]["data"]
    mixing["replay"] = None
    for mixture in (mixing, *mixing["phases"]):
        mixture["weights"] = None
        if isinstance(mixture.get("repeat"), dict):
            mixture["repeat"] = None
    content["evaluation"]["sets"] = {
        # Settings of the recipe's own sets go with them; those of unknown ones stay, to be refused.
        name: own
        for name, own in content["evaluation"]["sets"].items()
        if name in sets or name not in recipe.evaluation_sets
    }
    content["gate"]["must_beat_baselines"] = [s for s in recipe.gate.must_beat_baselines if s in sets]
    return parse_recipe(content, f"recipe {recipe.name} with data {data}")


def own_name(recipe: str, data: str) -> str:
    """`recipe+folder`, a valid name of a model, from the name of the folder with the documents."""
    folder = Path(data.rstrip("/")).name.lower() or "data"
    return f"{recipe}+{make_name(folder, 'data', '._-', '-', max(16, LONGEST_NAME - 1 - len(recipe)))}"[:LONGEST_NAME]


def _merge(data: dict[str, Any], changes: dict[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            _merge(data[key], value)
        else:
            data[key] = value


def apply_override(data: dict[str, Any], override: str) -> None:
    """Sets one `key.path=value`, the value in YAML.

    Raises:
        ConfigError: it is not written so, or goes through something that is no section.
        CredentialsError: its value has credentials in it.
    """
    key, equals, text = override.partition("=")
    refuse_credentials(f"--set {redact(key)}", override)  # first, since other messages repeat it
    if not equals or not key:
        raise ConfigError(f"--set {override!r}: write it as section.key=value, for example training.steps=200")
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {override!r}: the value is not valid YAML: {error}") from None
    refuse_credentials(f"--set {key}", value)  # YAML has escapes
    at = data
    *parents, last = key.split(".")
    for parent in parents:
        at = at.setdefault(parent, {})
        if not isinstance(at, dict):
            raise ConfigError(f"--set {override!r}: {parent!r} is not a section")
    at[last] = value


_ALTERNATIVE = re.compile(r"(constrained|literal|function|tuple|list|dict)\b.*|int|float|str|bool")
"""What pydantic puts behind the key of a setting of several kinds."""


def _by_key(details: Sequence[Any]) -> list[Any]:
    """The errors, those of one setting that may be of several kinds joined: none of the kinds fits."""
    found: dict[Any, Any] = {}
    for detail in details:
        loc = tuple(detail["loc"])
        while loc and isinstance(loc[-1], str) and _ALTERNATIVE.fullmatch(loc[-1]) and _section_at(loc) is None:
            loc = loc[:-1]
        known = found.get(loc)
        if known is None or len(loc) == len(detail["loc"]):
            found[loc if known is None else (*loc, len(found))] = {**detail, "loc": loc}
        elif detail["msg"] not in known["msg"]:
            known["msg"] += f", or: {detail['msg']}"
    return [*found.values()]


def _explain(detail: Any) -> str:
    where = ".".join(str(part) for part in detail["loc"])
    unnumbered = ".".join(part for part in detail["loc"] if isinstance(part, str))
    if unnumbered in GROUP_NOW and not isinstance(detail["input"], dict):
        return f"{where}: is a group of settings now; set {GROUP_NOW[unnumbered]} (given: {detail['input']!r})"
    if detail["type"] != "extra_forbidden":
        given = "" if isinstance(detail["input"], dict) else f" (given: {detail['input']!r})"
        return (
            f"{where}: {detail['msg'].removeprefix('Value error, ')}{given}"
            if where
            else detail["msg"].removeprefix("Value error, ")
        )
    if unnumbered in RENAMED_KEYS:
        return f"{where}: is called {RENAMED_KEYS[unnumbered]} now"
    section, name = detail["loc"][:-1], str(detail["loc"][-1])
    near = _nearest_key(section, name)
    known = sorted(model.model_fields) if (model := _section_at(section)) else []
    hint = f"did you mean {near!r}?" if near else f"known here: {', '.join(known)}"
    return f"{where}: unknown key; {hint}"


def _nearest_key(section: Sequence[Any], name: str) -> str:
    """The key that an unknown one may mean; empty if none is near."""
    below, everywhere = _keys_by_name(section), _keys_by_name(())
    if name in below:
        return below[name]
    if longer := [one for one in below if one.endswith(f"_{name}")]:
        return below[longer[0]]
    if name in everywhere:
        return everywhere[name]
    alike = difflib.get_close_matches(name, below, 1, cutoff=0.5)
    return below[alike[0]] if alike else ""


def _keys_by_name(section: Sequence[Any]) -> dict[str, str]:
    """The keys of a section by their last names: as they are if they stand in it, below it with their whole paths.

    Of several with one name, the first of the upper ones. Those of lists, and of what a recipe names, have no path.
    """
    found: dict[str, str] = {}
    level = [(tuple(map(str, section)), _section_at(section))]
    while level:
        below: list[tuple[tuple[str, ...], type[BaseModel] | None]] = []
        for path, model in level:
            for name, field in model.model_fields.items() if model else ():
                key = (*path, name)
                found.setdefault(name, name if len(path) == len(section) else ".".join(key))
                if typing.get_origin(field.annotation) not in (dict, list, tuple):
                    below += [(key, inner) for inner in _models_in(field.annotation)]
        level = below
    return found


def _section_at(loc: Sequence[Any]) -> type[BaseModel] | None:
    """The model of a section of the recipe; None if there is none."""
    at: type[BaseModel] = Recipe
    for part in loc:
        field = at.model_fields.get(part)
        if field is None:
            continue  # a name or number that the recipe gives
        inner = _models_in(field.annotation)
        if not inner:
            return None
        at = inner[0]
    return at


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for argument in typing.get_args(annotation) for model in _models_in(argument)]
