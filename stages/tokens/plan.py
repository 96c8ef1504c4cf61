"""What an order will read, computed in advance: tokens and epochs by source and phase."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from stages.tokens.order import Order

MANY_EPOCHS = 4.0
"""Up to four epochs, repeated tokens teach about as much as new ones; beyond, less (Muennighoff et al. 2023)."""


@dataclass(frozen=True)
class PlannedSource:
    """One source in a segment, or in the whole run."""

    samples: int
    tokens: int
    """Tokens in the drawn rows, including EOS and the padding of a last row."""
    share: float
    """Fraction of the segment's (the run's) tokens."""
    epochs: float
    """Passes over the source; 1.0 is all of its rows once."""


@dataclass(frozen=True)
class PlannedSegment:
    """A phase, or the part of one up to where a source reaches its `repeat`."""

    phase: int
    first_position: int
    samples: int
    rows_per_sample: int
    """Rows of the token stream in a sample."""
    tokens: int
    exhausted_sources: tuple[str, ...]
    """Sources that reach their `repeat` at the end of the segment and leave the mixture."""
    sources: Mapping[str, PlannedSource]


@dataclass(frozen=True)
class Plan:
    """A run's plan."""

    samples: int
    tokens: int
    streams: int
    shuffle_window_shards: int
    segments: tuple[PlannedSegment, ...]
    sources: Mapping[str, PlannedSource]
    """Over the whole run."""
    rows: Mapping[str, int]
    """Total rows of each source."""
    rows_left_out: Mapping[str, Mapping[str, int]]
    """Per sample length in rows (as text) and source: rows that belong to no sample of that length."""
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
    segments = []
    for segment in order.segments:
        samples = segment.drawn.sum(axis=1)
        drawn_samples += samples
        drawn_rows += samples * segment.rows_per_sample
        length = segment.rows_per_sample * sequence_length
        sources = {
            name: PlannedSource(
                samples=int(samples[s]),
                tokens=int(samples[s]) * length,
                share=_rounded(samples[s] / samples.sum()),
                epochs=_rounded(samples[s] / shards.samples(segment.rows_per_sample)[s]),
            )
            for s, name in enumerate(shards.sources)
            if segment.mixture.counts[s]
        }
        total = segment.slots * order.streams
        segments.append(
            PlannedSegment(
                phase=segment.phase,
                first_position=segment.start * order.streams,
                samples=total,
                rows_per_sample=segment.rows_per_sample,
                tokens=total * length,
                exhausted_sources=segment.exhausted_sources,
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
        streams=order.streams,
        shuffle_window_shards=order.shuffle_window_shards,
        segments=tuple(segments),
        sources=whole,
        rows={name: int(rows[s]) for s, name in enumerate(shards.sources)},
        rows_left_out={
            str(length): {name: int(left) for name, left in zip(shards.sources, shards.left_out(length), strict=True)}
            for length in order.sample_lengths
        },
        warnings=tuple(_warnings(whole)),
    )


def _warnings(sources: Mapping[str, PlannedSource]) -> list[str]:
    found = []
    for name, source in sources.items():
        if source.epochs > MANY_EPOCHS:
            found.append(
                f"source {name!r} is read {source.epochs:.1f} times; beyond {MANY_EPOCHS:.0f} epochs repeated tokens "
                "add little: add documents, lower its weight, or set `repeat`"
            )
        elif not source.samples:
            found.append(f"source {name!r} is never drawn: no phase gives it a weight, or the run is too short")
    return found


def _rounded(value: float) -> float:
    return round(float(value), 6)
