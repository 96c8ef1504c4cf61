"""What an order will read, told before it is read: tokens and epochs by source and phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stages.tokens.order import Order

MANY_EPOCHS = 4.0
"""Up to four epochs, repeated tokens teach about as much as new ones; beyond, ever less (Muennighoff et al. 2023)."""


@dataclass(frozen=True)
class PlannedSource:
    """One source in a stretch, or in the whole run."""

    samples: int
    tokens: int
    """Tokens of the rows that are drawn: EOS and a last row's filler included."""
    share: float
    """Of the stretch's (the run's) tokens."""
    epochs: float
    """Times that the source is read here, 1.0 being all of its rows once."""


@dataclass(frozen=True)
class PlannedStretch:
    """A phase, or the part of one up to where a source has used up its `repeat`."""

    phase: int
    first_position: int
    samples: int
    k: int
    """Rows a sample."""
    tokens: int
    ended_by_repeat_of: tuple[str, ...]
    """Sources that leave the mixture at the end of the stretch."""
    sources: Mapping[str, PlannedSource]


@dataclass(frozen=True)
class Plan:
    """A run's plan."""

    samples: int
    tokens: int
    lanes: int
    window: int
    stretches: tuple[PlannedStretch, ...]
    sources: Mapping[str, PlannedSource]
    """Over the whole run."""
    rows: Mapping[str, int]
    """Rows that each source has."""
    rows_left_out: Mapping[str, Mapping[str, int]]
    """Per k (as text) and source: rows that belong to no sample of k rows."""
    warnings: tuple[str, ...]
    """Sources that are read very often, or never; one sentence each."""

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def plan(order: Order, sequence_length: int) -> Plan:
    """The plan of an order over rows of `sequence_length` tokens."""
    shards = order.shards
    rows = np.array([int(each.sum()) for each in shards.rows], dtype=np.int64)
    drawn_rows, drawn_samples = np.zeros_like(rows), np.zeros_like(rows)
    stretches = []
    for stretch in order.stretches:
        samples = stretch.drawn.sum(axis=1)
        drawn_samples += samples
        drawn_rows += samples * stretch.k
        length = stretch.k * sequence_length
        sources = {
            name: PlannedSource(
                samples=int(samples[s]),
                tokens=int(samples[s]) * length,
                share=_rounded(samples[s] / samples.sum()),
                epochs=_rounded(samples[s] / shards.samples(stretch.k)[s]),
            )
            for s, name in enumerate(shards.sources)
            if stretch.mixture.counts[s]
        }
        total = stretch.slots * order.lanes
        stretches.append(
            PlannedStretch(
                phase=stretch.phase,
                first_position=stretch.start * order.lanes,
                samples=total,
                k=stretch.k,
                tokens=total * length,
                ended_by_repeat_of=stretch.used_up,
                sources=sources,
            )
        )
    whole = {
        name: PlannedSource(
            samples=int(drawn_samples[s]),
            tokens=int(drawn_rows[s]) * sequence_length,
            share=_rounded(drawn_rows[s] / drawn_rows.sum()),
            epochs=_rounded(drawn_rows[s] / rows[s]),
        )
        for s, name in enumerate(shards.sources)
    }
    return Plan(
        samples=order.samples,
        tokens=int(drawn_rows.sum()) * sequence_length,
        lanes=order.lanes,
        window=order.window,
        stretches=tuple(stretches),
        sources=whole,
        rows={name: int(rows[s]) for s, name in enumerate(shards.sources)},
        rows_left_out={
            str(k): {name: int(left) for name, left in zip(shards.sources, shards.left_out(k), strict=True)}
            for k in order.ks
        },
        warnings=tuple(_warnings(whole)),
    )


def _warnings(sources: Mapping[str, PlannedSource]) -> list[str]:
    found = []
    for name, source in sources.items():
        if source.epochs > MANY_EPOCHS:
            found.append(
                f"source {name!r} is read {source.epochs:.1f} times; beyond {MANY_EPOCHS:.0f} epochs repeated tokens "
                "teach ever less: add documents, lower its weight, or set `repeat`"
            )
        elif not source.samples:
            found.append(f"source {name!r} is never drawn: no phase gives it a weight, or the run is too short")
    return found


def _rounded(value: float) -> float:
    return round(float(value), 6)
