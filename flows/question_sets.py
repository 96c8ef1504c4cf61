"""Reads the question sets of a recipe in full before any work: a bad one would stop the run after training."""

from __future__ import annotations

from collections.abc import Sequence

from flows.recipe import Recipe
from stages.corpus import list_files
from stages.evaluation import read_set, scored_sets
from stages.evaluation.config import check_name
from stages.evaluation.sets import places
from stages.questions import read_rows
from stages.store import ConfigError, InputError


def check_question_sets(recipe: Recipe) -> list[str]:
    """A note for each set outside the sample: its questions, and what was understood or left out.

    The sample's sets are not there yet, and made by this project.

    Raises:
        ConfigError: a set's name is invalid, or a setting names a set that is not scored.
        InputError: naming set, file and line: a set that cannot be read, or a question that cannot be scored.
    """
    scored = scored_sets(recipe.evaluation_sets)
    _check_names(recipe, scored)
    found = {place: False for place in recipe.corpus.decontamination.sets.items()}
    # A set may be in both: as it is scored, it must fulfil more.
    found |= {(name, location): name in scored for name, location in recipe.evaluation_sets.items()}
    return [
        f"question set {name}: {_read(recipe, name, location, is_scored)}"
        for (name, location), is_scored in found.items()
        if not location.startswith("sample://")
    ]


def _check_names(recipe: Recipe, scored: Sequence[str]) -> None:
    for name in (*recipe.evaluation_sets, *recipe.corpus.decontamination.sets):
        check_name(name)
    settings = {"evaluation.sets": recipe.evaluation.sets, "gate.must_beat_baselines": recipe.gate.must_beat_baselines}
    for setting, names in settings.items():
        unknown = [name for name in names if name not in scored]
        if unknown:
            known = ", ".join(scored) or "none"
            raise ConfigError(f"{setting}: no scored set is named {', '.join(unknown)}; scored sets: {known}")


def _read(recipe: Recipe, name: str, location: str, is_scored: bool) -> str:
    """Reads one set and describes it."""
    try:
        listing = list_files(location)
        if not is_scored:
            rows = read_rows(listing)
            parts = [f"{len(rows.rows)} questions, not scored", rows.spelling, _other_files(rows.left_out)]
        else:
            found = read_set(listing, recipe.evaluation.options(name).equal_options, name)
            equal = f"{len(found.left_out)} left out, with equal options: {places(found.left_out)}"
            parts = [
                f"{len(found.questions)} questions",
                found.spelling,
                equal if found.left_out else "",
                _other_files(found.other_files),
            ]
    except InputError as error:
        raise InputError(f"question set {name}: {error}") from error
    return "; ".join(filter(None, parts))


def _other_files(names: Sequence[str]) -> str:
    return f"not read, since not JSON Lines: {', '.join(names[:5])} ({len(names)} files)" if names else ""
