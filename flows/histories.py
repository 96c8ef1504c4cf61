"""Training runs in the store, finished or not: progress, state and curves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.renamed_keys import upgrade_training_config
from stages.store import Artifact, EventLog, Store, list_refs, load
from stages.store.events import Event
from stages.store.lease import STALE_SECONDS, Lease
from stages.training.metrics.history import STEPS
from stages.training.preflight.plan import PLAN
from stages.training.run import HISTORY, VALIDATIONS

CURVES = tuple(STEPS.names)
"""Columns that are recorded for each step."""
FINISHED, RUNNING, STOPPED, FAILED, UNFINISHED = "finished", "running", "stopped", "failed", "unfinished"
"""States of a run; `unfinished`: no process works on it, and it recorded no end."""
_ENDS = ("failed", "stopped", "started", "workers")


@dataclass(frozen=True)
class Overview:
    """One training run."""

    folder: str
    artifact: Artifact | None
    state: str
    size: str
    step: int
    """Number of batches done."""
    steps: int
    """Number of batches of the whole run."""
    loss: float | None
    bits_per_byte: float | None
    tokens: int
    tokens_per_second: float | None
    started: float
    """Seconds since the epoch; 0 if the run has no events."""

    @property
    def name(self) -> str:
        """The run's name on the command line: see `flows.runs.find_run`."""
        return f"training/{self.artifact.digest[:12]}" if self.artifact else self.folder


def overviews(store: Store) -> list[Overview]:
    """All training runs, the newest first."""
    found = [_overview(store, folder) for folder in store.folders("training")]
    return sorted((run for run in found if run), key=lambda run: run.started, reverse=True)


def _overview(store: Store, folder: str) -> Overview | None:
    """None for a folder whose run ended before it recorded its plan."""
    artifact = load(store, folder)
    events = EventLog(store, folder).read(only=(PLAN, *_ENDS), newest=("step", "validation"))[0]
    last = {event["type"]: event for event in events}
    if PLAN not in last and not artifact:
        return None
    config = upgrade_training_config(artifact.manifest.resolved_config if artifact else last[PLAN]["config"])
    step, metrics = last.get("step", {}), artifact.manifest.metrics if artifact else {}
    return Overview(
        folder=folder,
        artifact=artifact,
        state=FINISHED if artifact else _state(store, folder, events),
        size=str(config.get("model", {}).get("size", "")),
        step=int(config["steps"]) if artifact else int(step.get("step", -1)) + 1,
        steps=int(config["steps"]),
        loss=metrics.get("loss", step.get("loss")),
        bits_per_byte=metrics.get("bits_per_byte", last.get("validation", {}).get("bits_per_byte")),
        tokens=int(artifact.manifest.counts.get("tokens", 0)) if artifact else int(step.get("tokens", 0)),
        tokens_per_second=metrics.get("tokens_per_second", step.get("tokens_per_second")),
        started=float(events[0]["time"]) if events else 0.0,
    )


def _state(store: Store, folder: str, events: list[Event]) -> str:
    holder = Lease(store, folder).holder()
    if holder and not holder.is_known_dead and time.time() - holder.heartbeat < STALE_SECONDS:
        return RUNNING
    ends = [event["type"] for event in events if event["type"] in _ENDS]
    return {"failed": FAILED, "stopped": STOPPED}.get(ends[-1] if ends else "", UNFINISHED)


def overview_rows(store: Store) -> list[dict[str, Any]]:
    """The runs as rows of a table."""
    refs = {digest: name for name, digest in list_refs(store).items() if name.endswith("/training")}
    rows = []
    for run in overviews(store):
        started = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)) if run.started else None
        rows.append(
            {
                "run": run.name,
                "ref": refs.get(run.artifact.digest) if run.artifact else None,
                "state": run.state,
                "size": run.size,
                "step": f"{run.step:,}/{run.steps:,}",
                "loss": run.loss,
                "bits_per_byte": run.bits_per_byte,
                "tokens": run.tokens,
                "tokens_per_second": round(run.tokens_per_second) if run.tokens_per_second else None,
                "started": started,
            }
        )
    return rows


@dataclass(frozen=True)
class HeldOut:
    """A run's validations in order. NaN for a source without text in a validation."""

    step: NDArray[np.int64]
    """[n]: optimizer steps, applied or skipped, before it."""
    tokens: NDArray[np.float64]
    """[n]"""
    seconds: NDArray[np.float64]
    """[n]: seconds of training before it."""
    bits_per_byte: NDArray[np.float64]
    """[n]: over all sources."""
    by_source: Mapping[str, NDArray[np.float64]]
    """Each [n]."""


def curves(store: Store, folder: str) -> Mapping[str, NDArray[np.float64]]:
    """`CURVES` of a run, each float64 [n]: of every step if it is finished, else of the steps in its events.

    Steps that were repeated after a restart count once, with their last values. What a step, or the run's
    version, did not measure is NaN.
    """
    artifact = load(store, folder)
    if artifact:
        with artifact.open(HISTORY) as file:
            table = pq.read_table(file)
        missing = np.full(len(table), np.nan)
        return {
            name: table[name].to_numpy().astype(np.float64) if name in table.column_names else missing
            for name in CURVES
        }
    events = {event["step"]: event for event in EventLog(store, folder).read(only=("step",))[0]}
    return {
        name: np.array([events[step].get(name, np.nan) for step in sorted(events)], dtype=np.float64) for name in CURVES
    }


def held_out(store: Store, folder: str) -> HeldOut:
    """The validations of a run, finished or not. One that was repeated after a restart counts once, the last time."""
    artifact = load(store, folder)
    if artifact and artifact.files(VALIDATIONS):
        with artifact.open(VALIDATIONS) as file:
            lines = pq.read_table(file).to_pylist()
    else:
        lines = _validations_from_events(store, folder)
    totals = {line["step"]: line for line in lines if line["source"] is None}
    steps = sorted(totals)
    by_source: dict[str, dict[int, float]] = {}
    for line in lines:
        if line["source"] is not None:
            by_source.setdefault(line["source"], {})[line["step"]] = line["bits_per_byte"]
    tokens, seconds, total = (
        np.array([totals[step][name] for step in steps], dtype=np.float64)
        for name in ("tokens", "seconds", "bits_per_byte")
    )
    per_source = {
        source: np.array([values.get(step, np.nan) for step in steps]) for source, values in sorted(by_source.items())
    }
    return HeldOut(np.array(steps, dtype=np.int64), tokens, seconds, total, per_source)


def _validations_from_events(store: Store, folder: str) -> list[dict[str, Any]]:
    """The same rows as in a finished run's file. The oldest versions recorded only step and result."""
    lines = []
    for event in EventLog(store, folder).read(only=("validation",))[0]:
        common = {"step": event["step"], "tokens": event.get("tokens"), "seconds": event.get("seconds")}
        lines.append(common | {"source": None, "bits_per_byte": event["bits_per_byte"]})
        for source, value in event.get("by_source", {}).items():
            lines.append(common | {"source": source, "bits_per_byte": value})
    return lines
