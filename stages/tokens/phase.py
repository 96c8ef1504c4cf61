"""A phase of a run: its length and mixture. This module has the only checks of these values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

Weights = TypeVar("Weights", bound=Mapping[str, float])
Repeat = TypeVar("Repeat", bound="float | Mapping[str, float]")


@dataclass(frozen=True)
class Phase:
    """A part of a run with one mixture and one sample length.

    Raises:
        ValueError: a value that no run can use; the message begins with the field's name.
    """

    samples: int
    """Samples in the phase; a multiple of the data streams (and, for training, of the global batch size)."""
    rows_per_sample: int = 1
    """Rows of the token stream in a sample, a power of two."""
    weights: Mapping[str, float] | None = None
    """Share of each source in tokens; sources that are not named are not drawn. None: by size, every source drawn (one
    slot of 1,024 at least)."""
    repeat: float | Mapping[str, float] | None = None
    """Maximum epochs of each source, counted from the start of the run at this `rows_per_sample`; None: no limit. A
    source that reaches its maximum leaves the mixture there."""

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples: {self.samples}; must be positive")
        try:
            field = "rows_per_sample"
            check_rows_per_sample(self.rows_per_sample)
            field = "weights"
            if self.weights is not None:
                check_weights(self.weights)
            field = "repeat"
            if self.repeat is not None:
                check_repeat(self.repeat)
        except ValueError as error:
            raise ValueError(f"{field}: {error}") from None


def check_rows_per_sample(rows: int) -> int:
    """Returns `rows`, a valid number of rows per sample.

    Raises:
        ValueError: it is not a power of two.
    """
    if rows < 1 or rows & (rows - 1):
        raise ValueError(f"{rows} is not a power of two")
    return rows


def check_weights(weights: Weights) -> Weights:
    """Returns `weights`, valid shares by source.

    Raises:
        ValueError: a weight that is negative or not finite, or none that is positive.
    """
    for source, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"source {source!r} has {weight}; a weight must be a finite number, 0 or more")
    if not any(weights.values()):
        raise ValueError("all weights are 0; give at least one source a positive weight, or omit them to draw by size")
    return weights


def check_repeat(repeat: Repeat) -> Repeat:
    """Returns `repeat`, valid maximum epochs of all sources, or by source.

    Raises:
        ValueError: a maximum that is not positive or not finite.
    """
    for source, epochs in repeat.items() if isinstance(repeat, Mapping) else [("", repeat)]:
        if not (math.isfinite(epochs) and epochs > 0):
            subject = f"source {source!r} has {epochs}" if source else f"it is {epochs}"
            raise ValueError(f"{subject}; the maximum epochs of a source must be a finite number above 0")
    return repeat
