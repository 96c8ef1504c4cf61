"""Two training runs side by side: differences in recipe and data, losses at equal tokens, bits per byte of held-out
text by source, and seconds by phase."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.changes import differences
from flows.histories import HeldOut, curves, held_out
from flows.runs import TracedRun
from stages.store import Store, StoreError, all_artifacts, canonical, load
from stages.training.metrics.phase_clock import ON_DEVICE, PHASES

POINTS = 12
"""Rows of the table of losses."""
TIMES = (*ON_DEVICE, "stall", "whole", "data", "checkpoint", "validation")
"""The phases on the device and `stall` add up to `whole`; data and checkpoint are parts of the stall."""
METRICS = ("loss", "bits_per_byte", "tokens_per_second", "model_flops_utilization")


@dataclass(frozen=True)
class Comparison:
    """What `headwater compare` shows."""

    names: tuple[str, str]
    differences: list[str]
    """Settings and data in which the runs differ, as `what: first -> second`."""
    losses: list[dict[str, Any]]
    """Mean losses over equal ranges of tokens, up to the end of the shorter run."""
    held_out: list[dict[str, Any]]
    """Bits per byte by source, and of all sources, from each run's last validation."""
    times: list[dict[str, Any]]
    """Seconds by phase; the whole excludes validation. Empty if one of the runs has not finished, or was made by a
    version that did not measure them."""
    ends: list[dict[str, Any]]
    """Steps, tokens and final metrics of each run."""
    curves: tuple[Mapping[str, NDArray[np.float64]], Mapping[str, NDArray[np.float64]]]
    validations: tuple[HeldOut, HeldOut]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values, without the curves."""
        return {
            "runs": list(self.names),
            "differences": self.differences,
            "losses": self.losses,
            "held_out": self.held_out,
            "times": self.times,
            "ends": self.ends,
        }


def compare(store: Store, first: TracedRun, second: TracedRun) -> Comparison:
    """Compares two runs, finished or not.

    Raises:
        StoreError: one of them has no steps yet.
    """
    runs = (first, second)
    both = (curves(store, first.folder), curves(store, second.folder))
    validations = (held_out(store, first.folder), held_out(store, second.folder))
    for run, curve in zip(runs, both, strict=True):
        if not len(curve["step"]):
            raise StoreError(f"{run.name} has recorded no step yet; there is nothing to compare")
    return Comparison(
        names=(first.name, second.name),
        differences=[*_settings(first, second), *_data(store, first, second)],
        losses=losses_at_equal_tokens(*both),
        held_out=_held_out(*validations),
        times=_times(*both) if all(load(store, run.folder) for run in runs) else [],
        ends=_ends(store, first, second, both),
        curves=both,
        validations=validations,
    )


def losses_at_equal_tokens(
    first: Mapping[str, NDArray[Any]], second: Mapping[str, NDArray[Any]], points: int = POINTS
) -> list[dict[str, Any]]:
    """Mean losses in equal ranges of tokens, up to the end of the shorter run; None for a range without a step.

    Returns:
        Rows with `tokens` (the end of the range), `first`, `second`, `difference`.
    """
    edges = np.linspace(0, min(first["tokens"][-1], second["tokens"][-1]), points + 1)
    means = [_means(curve["tokens"], curve["loss"], edges) for curve in (first, second)]
    return [{"tokens": round(float(edge)), **_side_by_side(a, b)} for edge, a, b in zip(edges[1:], *means, strict=True)]


def _means(tokens: NDArray[Any], loss: NDArray[Any], edges: NDArray[Any]) -> list[float | None]:
    bins = np.searchsorted(edges, tokens, side="left") - 1
    inside = [loss[bins == number] for number in range(len(edges) - 1)]
    return [float(values.mean()) if len(values) else None for values in inside]


def _held_out(first: HeldOut, second: HeldOut) -> list[dict[str, Any]]:
    pairs = [("all", first.bits_per_byte, second.bits_per_byte)]
    none = np.zeros(0)
    for source in sorted({*first.by_source, *second.by_source}):
        pairs.append((source, first.by_source.get(source, none), second.by_source.get(source, none)))
    return [{"source": source, **_side_by_side(_last(a), _last(b))} for source, a, b in pairs if len(a) or len(b)]


def _last(values: NDArray[np.float64]) -> float | None:
    return float(values[-1]) if len(values) and not np.isnan(values[-1]) else None


def _side_by_side(a: float | None, b: float | None) -> dict[str, float | None]:
    return {"first": a, "second": b, "difference": None if a is None or b is None else b - a}


def _times(*both: Mapping[str, NDArray[np.float64]]) -> list[dict[str, Any]]:
    if any(np.isnan(curve["seconds"]).any() for curve in both):
        return []
    names = {phase: f"{phase}_seconds" for phase in (*PHASES, "stall")}
    sums = {phase: [float(curve[name].sum()) for curve in both] for phase, name in names.items()}
    sums["whole"] = [float(curve["seconds"][-1]) for curve in both]
    return [{"phase": phase, "first": sums[phase][0], "second": sums[phase][1]} for phase in TIMES]


def _settings(first: TracedRun, second: TracedRun) -> list[str]:
    a, b = first.config, second.config
    return differences("training", canonical(a), canonical(b), a.model_dump(mode="json"), b.model_dump(mode="json"))


def _data(store: Store, first: TracedRun, second: TracedRun) -> Iterator[str]:
    """Differences from the tokens back to the corpus and its sources, as far as their artifacts still exist."""
    if first.tokens_digest == second.tokens_digest:
        return
    yield f"tokens: {first.tokens_digest[:12]} -> {second.tokens_digest[:12]}"
    known = {(artifact.manifest.kind, artifact.digest): artifact for artifact in all_artifacts(store)}
    digests = [first.tokens_digest, second.tokens_digest]
    for kind in ("tokens", "corpus"):
        pair = [known[kind, digest].manifest for digest in digests if (kind, digest) in known]
        if digests[0] == digests[1] or len(pair) < 2:
            return
        a, b = pair
        yield from differences(kind, a.config, b.config, a.resolved_config, b.resolved_config)
        for role in sorted({*a.inputs, *b.inputs} - {"corpus"}):
            before, now = a.inputs.get(role), b.inputs.get(role)
            if before != now:
                yield f"{kind}, {role}: {_short(before)} -> {_short(now)}"
        digests = [manifest.inputs.get("corpus", "") for manifest in pair]


def _short(digest: str | None) -> str:
    return digest[:12] if digest else "none"


def _ends(store: Store, first: TracedRun, second: TracedRun, both: tuple[Any, Any]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    found = [load(store, run.folder) for run in (first, second)]
    values = [
        {
            "steps": int(curve["step"][-1]) + 1,
            "tokens": int(curve["tokens"][-1]),
            **{name: artifact.manifest.metrics.get(name) if artifact else None for name in METRICS},
            **({} if artifact else {"loss": float(curve["loss"][-10:].mean())}),
        }
        for artifact, curve in zip(found, both, strict=True)
    ]
    for name in ("steps", "tokens", *METRICS):
        a, b = (value[name] for value in values)
        ratio = b / a if a and b is not None else None
        rows.append({"what": name, "first": a, "second": b, "ratio": ratio})
    return rows
