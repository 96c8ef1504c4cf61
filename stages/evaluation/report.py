"""The evaluation table for users."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from stages.evaluation.harness import METRICS, TaskResult
from stages.evaluation.sets import Baselines

COLUMNS = ["set", "n", "measure", "value", "± se", "random", "majority", "unigram", "verdict"]
"""Columns of the table. Empty cells are empty strings."""


def bits_per_byte_rows(source: str, totals: Mapping[str, Any], markov_order: int | None) -> list[list[Any]]:
    """Rows for the held-out documents of one source, or of all: the model's, and the Markov baseline's if measured."""
    name = "held-out" if source == "all" else f"held-out {source}"
    count = f"{totals['documents']} documents"

    def row(measure: str, key: str, baselines: tuple[str, ...]) -> list[Any]:
        value, unigram = totals[key], totals["unigram"]
        below = [word for word in baselines if value < totals[word.lower()]]
        above = [word for word in baselines if word not in below]
        verdicts = [
            *(["below " + " and ".join(below)] if below else []),
            *(["not below " + " and ".join(above)] if above else []),
        ]
        return [name, count, measure, f"{value:.3f}", "", "", "", f"{unigram:.3f}", ", ".join(verdicts)]

    if "markov" not in totals:
        return [row("bits per byte", "bits_per_byte", ("unigram",))]
    return [
        row("bits per byte", "bits_per_byte", ("unigram", "Markov")),
        row(f"bits per byte, Markov order {markov_order}", "markov", ("unigram",)),
    ]


def general_row(value: float, documents: int) -> list[Any]:
    """The row of general text, which has no baseline but the base's own."""
    return ["general text", f"{documents} documents", "bits per byte", f"{value:.3f}", "", "", "", "", ""]


def task_row(result: TaskResult, base: Baselines, size: int) -> list[Any]:
    """The row of one set in one formulation; `n` includes the set's size if only a part was scored."""
    options, form = result.task.options, result.task.formulation
    normalise = options.normalise if form == "cloze" else "none"
    value, stderr = result.accuracy[METRICS[normalise]], result.stderr[METRICS[normalise]]
    n = len(result.task.questions)
    per = "" if normalise == "none" else f" per {normalise.removesuffix('s')}"
    return [
        result.task.set,
        str(n) if n == size else f"{n} of {size}",
        f"accuracy, {form}{per}",
        f"{value:.3f}",
        f"{stderr:.3f}",
        f"{base.random:.3f}",
        f"{base.majority:.3f}",
        "",
        _verdict(value, stderr, base),
    ]


def _verdict(value: float, stderr: float, base: Baselines) -> str:
    """Comparison with the baselines, with two standard errors as tolerance."""
    best = max(base.random, base.majority)
    if math.isclose(value, best) or abs(value - best) <= 2 * stderr:
        return "level with baselines"
    return "above both baselines" if value > best else "below a baseline"
