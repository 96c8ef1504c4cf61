"""One run of the pipeline: recipe, store, the artifacts so far; runs stages with their events forwarded."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from flows.artifacts import show_done
from flows.forward import Forwarder, PrefectSink, Sink, TerminalSink, forward_rest
from flows.recipe import Recipe
from flows.steps import STEP, RunArtifacts
from infra.services import ServiceError, ensure_running
from infra.settings import Settings
from stages.store import Artifact, Holder, Plan, Stage, Store, write_ref
from stages.training.cluster import driver as launch


@dataclass
class Timing:
    """Duration and outcome of one stage."""

    stage: str
    seconds: float
    state: str
    """`built`, `cached`, or `done` for steps that build no artifact."""
    own_seconds: float
    """The stage's own work, without the orchestration around it; 0 if its artifact was cached."""
    artifact: str = ""


@dataclass
class Job:
    """State shared by the flow's tasks."""

    settings: Settings
    recipe: Recipe
    store: Store
    console: Console
    logger: logging.Logger | logging.LoggerAdapter
    force_new_run: bool = False
    artifacts: RunArtifacts = field(default_factory=RunArtifacts)
    timings: list[Timing] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What was guessed, and which files are not read."""
    background: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "background"))
    began: float = field(default_factory=time.monotonic)
    _lagging: list[tuple[str, Sink]] = field(default_factory=list)
    """Trackers that had not received all events when a stage ended, with the stage's folder."""

    def note(self, lines: Sequence[str]) -> None:
        """Prints notes and keeps them for the report."""
        for line in lines:
            self.console.print(line, markup=False)
            self.logger.info(line)
        self.notes += lines

    def plan(self, kind: str) -> Plan:
        """The plan of one of the flow's steps, given the artifacts so far."""
        step = STEP[kind]
        config, inputs = step.config(self.recipe, self.artifacts), step.inputs(self.recipe, self.artifacts)
        return step.stage.plan(config, inputs, self.store, force_new_run=self.force_new_run)

    def build(self, kind: str, sinks: tuple[Callable[[Plan], Sink], ...] = ()) -> Artifact:
        """Runs one of the flow's steps, or finds its artifact cached; sets its ref to the result."""
        step = STEP[kind]
        artifact = self.run(
            step.stage, step.config(self.recipe, self.artifacts), step.inputs(self.recipe, self.artifacts), kind, sinks
        )
        self.artifacts[kind] = artifact
        write_ref(self.store, self.recipe.name, kind, artifact)
        return artifact

    def run(
        self,
        stage: Stage[Any],
        config: Any,
        inputs: Any,
        name: str,
        sinks: tuple[Callable[[Plan], Sink], ...] = (),
    ) -> Artifact:
        """Runs one stage with its events forwarded to the terminal, Prefect and the given sinks."""
        began = time.monotonic()
        plan = stage.plan(config, inputs, self.store, force_new_run=self.force_new_run)
        if plan.done:
            artifact = stage.run(config, inputs, self.store, plan)
            state = "cached"
            for sink in sinks:  # it may have missed events when the artifact was built
                forward_rest(self.store, plan.folder, sink(plan))
            show_done(name)
        else:
            displays: list[Sink] = [TerminalSink(name, self.console), PrefectSink(name, self.logger)]
            trackers = [sink(plan) for sink in sinks]
            with Forwarder(self.store, plan.folder, [*displays, *trackers], self._warn) as forwarder:
                artifact = stage.run(config, inputs, self.store, plan, on_wait=self._on_wait(name))
            self._lagging += [(plan.folder, tracker) for tracker in trackers if tracker in forwarder.lagging]
            state = "built"
            self._ensure_prefect()
        seconds = time.monotonic() - began
        manifest = artifact.manifest
        own = (manifest.finished - manifest.started).total_seconds() if state == "built" else 0.0
        self.timings.append(Timing(name, seconds, state, own, artifact.id))
        self.console.print(f"[bold]{name:<12}[/] {state:<7}{seconds:6.1f} s   {artifact.id}")
        self.logger.info("%s %s in %.1f s: %s", name, state, seconds, artifact.id)
        return artifact

    def _on_wait(self, name: str) -> Callable[[Holder], None]:
        """Reports once per holder that another run is building the artifact; that run's events show its progress."""
        reported: set[int] = set()

        def report(holder: Holder) -> None:
            if holder.pid not in reported:
                reported.add(holder.pid)
                message = f"{name}: another run ({holder}) is already building this artifact; waiting"
                self.console.print(f"  {message}", markup=False)
                self.logger.info(message)

        return report

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Runs work that builds no artifact (registration, deployment) and records its duration."""
        began = time.monotonic()
        result = work()
        seconds = time.monotonic() - began
        self.timings.append(Timing(name, seconds, "done", seconds))
        self.console.print(f"[bold]{name:<12}[/] done   {seconds:6.1f} s")
        self.logger.info("%s done in %.1f s", name, seconds)
        return result

    def mlflow_ready(self) -> None:
        """Waits until MLflow answers, restarting it if it died, and forwards the events that it missed."""
        ensure_running(self.settings, "mlflow")
        self._lagging = [(folder, sink) for folder, sink in self._lagging if not forward_rest(self.store, folder, sink)]

    def _ensure_prefect(self) -> None:
        """Restarts Prefect if it died. The run continues without it if that fails."""
        try:
            ensure_running(self.settings, "prefect")
        except ServiceError as error:
            self._warn(f"Prefect does not answer; the run continues: {error}")

    def _warn(self, message: str) -> None:
        self.console.print(f"  {message}", markup=False)
        self.logger.warning(message)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *exc: object) -> None:
        """Shuts down Ray, if a stage started it, and the background threads."""
        launch.shutdown()
        self.background.shutdown(wait=True, cancel_futures=True)
