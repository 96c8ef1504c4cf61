"""What a person asks for, checked: recipe name, own documents, own question sets, overrides."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from flows.question_sets import check_question_sets
from flows.recipe import Recipe, apply_override, load_recipe, with_own_documents
from stages.corpus.reading.guess import printable
from stages.corpus.reading.sources import FoundSources, find_sources
from stages.corpus.reading.unread import describe_unread, is_utf8, printable_name
from stages.evaluation import find_sets
from stages.questions import set_name
from stages.store import ConfigError, InputError
from stages.store.credentials import refuse_credentials

OWN_SOURCES = "corpus.sources."
"""Keys that, together with data, are about the sources found there."""
RECIPE_SETS = ("evaluation_sets.", "corpus.decontamination.sets.")
"""Keys of a recipe's own question sets."""


def resolve_recipe(
    recipe: str, data: str | None = None, evaluation_data: str | None = None, overrides: Sequence[str] = ()
) -> tuple[Recipe, list[str]]:
    """The recipe to run and notes to print about what was guessed. `data` and `evaluation_data` are absolute paths or
    any fsspec URLs; empty ones are absent.

    Raises:
        ConfigError, InputError: naming the parameter and what is wrong with it.
    """
    check_parameters(recipe, data, evaluation_data, overrides)
    of_sources = [item for item in overrides if data and item.startswith(OWN_SOURCES)]
    chosen = load_recipe(recipe, [item for item in overrides if item not in of_sources])
    chosen.storage.apply()
    notes: list[str] = []
    if not data and not evaluation_data:
        return chosen, check_question_sets(chosen)
    if not data:
        raise ConfigError("evaluation_data: give it together with data; a recipe names its own question sets")
    for item in overrides:
        if item.startswith(RECIPE_SETS):
            raise ConfigError(f"--set {item}: with data, question sets come from evaluation_data")
    with _naming("data"):
        _absolute(data)
        found = find_sources(data, _source_settings(of_sources))
    notes += _source_notes(data, found)
    sets: dict[str, str] = {}
    if evaluation_data:
        with _naming("evaluation_data"):
            _absolute(evaluation_data)
            found_sets = find_sets(evaluation_data)
        sets = found_sets.paths
        named = ", ".join(_label(name, path) for name, path in sets.items())
        notes.append(f"question sets in {printable_name(evaluation_data)}: {named}")
        folder = printable_name(evaluation_data)
        notes += [f"not read in {folder}: {line}" for line in describe_unread(found_sets.unread)]
    if any(phase.weights for phase in chosen.training.phases):
        notes.append(f"{chosen.name}'s shares are of its own sources: yours are drawn by size (a recipe gives shares)")
    if chosen.training.data.replay is not None:
        notes.append(
            f"{chosen.name} replays its source {chosen.training.data.replay.source!r}, which is not among yours: "
            "nothing is replayed (a recipe of your own can)"
        )
    own = with_own_documents(chosen, data, found.sources, sets)
    with _naming("evaluation_data"):
        notes += check_question_sets(own)
    return own, notes


def check_parameters(
    recipe: str, data: str | None = None, evaluation_data: str | None = None, overrides: Sequence[str] = ()
) -> None:
    """Refuses credentials in the parameters of a run.

    Raises:
        CredentialsError: naming the parameter.
        ConfigError: an override is not written as section.key=value.
    """
    for name, value in (("recipe", recipe), ("data", data), ("evaluation_data", evaluation_data)):
        refuse_credentials(name, value)
    for override in overrides:
        apply_override({}, override)


def _source_settings(overrides: Sequence[str]) -> dict[str, dict[str, Any]]:
    """The settings of sources by name, from overrides such as `corpus.sources.NAME.fields.text=note`."""
    content: dict[str, Any] = {}
    for override in overrides:
        apply_override(content, override)
    found = content["corpus"]["sources"] if content else {}
    for name, settings in found.items():
        if not isinstance(settings, dict):
            key = f"{OWN_SOURCES}{name}"
            raise ConfigError(f"{key} is a group of settings; set one, for example {key}.license=MIT")
    return found


def _source_notes(data: str, found: FoundSources) -> list[str]:
    """What was found in a folder of documents, guessed about it, and not read."""
    folder = printable_name(data)
    notes = [f"guessed from the records in {folder} (a recipe says it exactly):"]
    columns, rows = printable(found.sources)
    for name, *values in rows:
        fields = [
            f"{column} <- {value}" for column, value in zip(columns[1:-1], values, strict=False) if value.strip("-")
        ]
        place = printable_name(found.sources[name].location.rstrip("/").rsplit("/", 1)[-1])
        notes.append(f"  source {name} ({place}, {found.files[name]:,} files): {', '.join(fields)}")
    notes += found.notes
    return notes + [f"not read in {folder}: {line}" for line in describe_unread(found.unread)]


def _label(name: str, path: str) -> str:
    """A set's name, with that of its file where it was made from another one."""
    file = path.rsplit("/", 1)[-1]
    return name if set_name(file) == name else f"{name} ({printable_name(file)})"


@contextmanager
def _naming(parameter: str) -> Iterator[None]:
    """Errors say which parameter is meant."""
    try:
        yield
    except (ConfigError, InputError) as error:
        raise type(error)(f"{parameter}: {error}") from error


def _absolute(value: str) -> None:
    if not is_utf8(value):
        raise ConfigError(f"{value!a}: the name is not UTF-8; rename the folder")
    if "://" not in value and not os.path.isabs(value):
        raise ConfigError(
            f"{value!r} is a relative path, and a deployment has no working directory to start from; "
            "give an absolute path or a URL"
        )
