"""One run of the pipeline: recipe, store, what is made so far, and how a stage is run with people watching."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console

from flows.artifacts import show_done
from flows.forward import Forwarder, PrefectSink, Sink, TerminalSink, catch_up
from flows.recipe import Recipe
from flows.steps import STEP, RunArtifacts
from infra.services import ServiceError, mend
from infra.settings import Settings
from stages.store import Artifact, Holder, Plan, Stage, Store, write_ref
from stages.training.cluster import driver as launch


@dataclass
class Timing:
    """How one stage went."""

    stage: str
    seconds: float
    state: str
    """`built` or `cached`."""
    own_seconds: float
    """The stage's own work, without orchestration around it; 0 when it was there."""
    artifact: str = ""


@dataclass
class Job:
    """Everything that the flow's tasks share."""

    settings: Settings
    recipe: Recipe
    store: Store
    console: Console
    logger: logging.Logger | logging.LoggerAdapter
    force_new_run: bool = False
    artifacts: RunArtifacts = field(default_factory=RunArtifacts)
    timings: list[Timing] = field(default_factory=list)
    background: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(4, "background"))
    began: float = field(default_factory=time.monotonic)
    _behind: list[tuple[str, Sink]] = field(default_factory=list)
    """Trackers that were away when a stage ended, and its folder."""

    def plan(self, kind: str) -> Plan:
        """What one of the flow's steps would do, given what is made so far."""
        step = STEP[kind]
        config, inputs = step.config(self.recipe, self.artifacts), step.inputs(self.recipe, self.artifacts)
        return step.stage.plan(config, inputs, self.store, force_new_run=self.force_new_run)

    def make(self, kind: str, sinks: tuple[Callable[[Plan], Sink], ...] = ()) -> Artifact:
        """Runs one of the flow's steps, or finds it done; points its ref at the result."""
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
        """Runs one stage with its events forwarded to terminal, Prefect and the given sinks."""
        began = time.monotonic()
        plan = stage.plan(config, inputs, self.store, force_new_run=self.force_new_run)
        if plan.done:
            artifact = stage.run(config, inputs, self.store, plan)
            state = "cached"
            for sink in sinks:  # that was away when it was made
                catch_up(self.store, plan.folder, sink(plan))
            show_done(name)
        else:
            watchers: list[Sink] = [TerminalSink(name, self.console), PrefectSink(name, self.logger)]
            trackers = [sink(plan) for sink in sinks]
            with Forwarder(self.store, plan.folder, [*watchers, *trackers], self._warn) as forwarder:
                artifact = stage.run(config, inputs, self.store, plan, waiting=self._waiting(name))
            self._behind += [(plan.folder, tracker) for tracker in trackers if tracker in forwarder.behind]
            state = "built"
            self._mend_prefect()
        seconds = time.monotonic() - began
        manifest = artifact.manifest
        own = (manifest.finished - manifest.started).total_seconds() if state == "built" else 0.0
        self.timings.append(Timing(name, seconds, state, own, artifact.id))
        self.console.print(f"[bold]{name:<12}[/] {state:<6}{seconds:6.1f} s   {artifact.id}")
        self.logger.info("%s %s in %.1f s: %s", name, state, seconds, artifact.id)
        return artifact

    def _waiting(self, name: str) -> Callable[[Holder], None]:
        """Tells once that another run makes the same; its progress is followed, the events are the same ones."""
        told: list[int] = []

        def tell(holder: Holder) -> None:
            if holder.pid not in told:
                told.append(holder.pid)
                self.console.print(f"  {name}: {holder} makes the same; waiting for it", markup=False)
                self.logger.info("%s: %s makes the same; waiting for it", name, holder)

        return tell

    def timed(self, name: str, work: Callable[[], Any]) -> Any:
        """Runs something that is no stage (registration, deployment) and notes its time."""
        began = time.monotonic()
        result = work()
        seconds = time.monotonic() - began
        self.timings.append(Timing(name, seconds, "done", seconds))
        self.console.print(f"[bold]{name:<12}[/] done  {seconds:6.1f} s")
        self.logger.info("%s done in %.1f s", name, seconds)
        return result

    def mlflow_ready(self) -> None:
        """Waits until MLflow answers, and gives it what it missed. It is started early and takes the longest; one that
        died is started again."""
        mend(self.settings, "mlflow")
        self._behind = [(folder, sink) for folder, sink in self._behind if not catch_up(self.store, folder, sink)]

    def _mend_prefect(self) -> None:
        """The work goes on without Prefect too, but what a person sees of it is better shown than missed."""
        try:
            mend(self.settings, "prefect")
        except ServiceError as error:
            self._warn(f"Prefect is away, the work goes on: {error}")

    def _warn(self, message: str) -> None:
        self.console.print(f"  {message}", markup=False)
        self.logger.warning(message)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *exc: object) -> None:
        """Ends Ray, if a stage started it, and the background threads."""
        launch.shutdown()
        self.background.shutdown(wait=True, cancel_futures=True)
