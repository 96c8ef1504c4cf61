"""What a person asks for, checked: recipe name, own documents, own question sets, overrides."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from flows.recipe import Recipe, load_recipe, with_own_documents
from stages.artifact import ConfigError, InputError
from stages.corpus import list_files
from stages.corpus.guess import printable, sources_in


def resolve_recipe(
    recipe: str, data: str | None = None, evaluation_data: str | None = None, overrides: Sequence[str] = ()
) -> tuple[Recipe, list[str]]:
    """The recipe to run and notes to print about what was guessed.

    Raises:
        ConfigError, InputError: naming the parameter and what is wrong with it.
    """
    chosen = load_recipe(recipe, overrides)
    notes: list[str] = []
    if data is None and evaluation_data is None:
        return chosen, notes
    _absolute("data", data)
    _absolute("evaluation_data", evaluation_data)
    if data is None:
        raise ConfigError("evaluation_data: give it together with data; a recipe names its own question sets")
    sources = sources_in(data)
    notes.append(f"guessed from the first records in {data} (a recipe says it exactly):")
    columns, rows = printable(sources)
    for name, *values in rows:
        found = [
            f"{column} <- {value}" for column, value in zip(columns[1:-1], values, strict=False) if value.strip("-")
        ]
        notes.append(f"  source {name}: {', '.join(found)}")
    sets = question_sets(evaluation_data) if evaluation_data else {}
    if evaluation_data:
        notes.append(f"question sets in {evaluation_data}: {', '.join(sets)}")
    return with_own_documents(chosen, data, sources, sets), notes


def question_sets(place: str) -> dict[str, str]:
    """The `.jsonl` files of a folder (or one file), by name."""
    listing = list_files(place)
    sets = {
        Path(entry.name).name.removesuffix(".jsonl"): listing.path(entry.name)
        for entry in listing.files
        if entry.name.endswith(".jsonl")
    }
    if not sets:
        raise InputError(f"evaluation_data: {place} holds no .jsonl file; each question set is one JSON Lines file")
    return sets


def _absolute(parameter: str, value: str | None) -> None:
    if value and "://" not in value and not os.path.isabs(value):
        raise ConfigError(
            f"{parameter}: {value!r} is a relative path, and a deployment has no working directory to start from; "
            "give an absolute path or a URL"
        )
