"""datatrove's Ray task manager, with actors that last from one rank to the next.

`RayPipelineExecutor.run` is used as it is: how many ranks are under way, which are given out again. What it does with
them is the work of its `RayTaskManager`, of which there is another one here, because datatrove's

- starts a process and a placement group for each rank: 1.5 s (measured) where the rank may take a tenth of one,
- runs the rank in a child of that process, and waits for ever if the child is killed, or if no process can be had,
- logs what a rank raises at debug level, and returns as if nothing had happened,
- and when interrupted leaves behind what was just being started.
"""

from __future__ import annotations

import multiprocessing.connection
import re
import time
import traceback
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from datatrove.executor.ray import RayPipelineExecutor, RayTaskManager

from stages.corpus.execution.executor import one_thread, portable
from stages.store import HeadwaterError

_LOSSES = 3
"""So often a rank, or the start of an actor, may lose its process or machine."""

_START_SECONDS = 600.0
"""How long a cluster may have no room for a single actor."""

LEAVE_SECONDS = 10.0
"""How long actors and driver may take to end before they are left to Ray, or killed."""

_POLL_SECONDS = 0.2
"""How often the driver looks whether its parent is still there."""


class Cancelled(Exception):
    """The parent has left, or wants no more."""


class Failed(Exception):
    """What a rank raised: `args[0]`."""


class Line:
    """The driver's end of the pipe to its parent."""

    def __init__(self, pipe: multiprocessing.connection.Connection):
        self._pipe = pipe

    def hear(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise Cancelled from error

    def tell(self, what: int | Exception | None) -> None:
        try:
            self._pipe.send(what)
        except OSError as error:
            raise Cancelled from error

    def check(self) -> None:
        """The parent says nothing while ranks run: there is something to hear if it has closed the pipe."""
        if self._pipe.poll():
            raise Cancelled


class _Worker:
    """The actor: it runs ranks in its own process, so that Ray knows when that is killed."""

    def __init__(self) -> None:
        one_thread()

    def load(self, executor: RayPipelineExecutor) -> None:
        self._executor = executor

    def run(self, ranks: Sequence[int]) -> Exception | None:
        """What one of the ranks raised, or None."""
        try:
            for rank in ranks:
                self._executor._run_for_rank(rank)
        except Exception as error:
            if not isinstance(error, HeadwaterError):
                error.add_note(traceback.format_exc())
            return portable(error)
        return None


@dataclass(eq=False)
class _Actor:
    handle: Any
    executor: Any = None
    """Reference to the executor that it has, or is to load."""
    loading: Any = None
    """Result of its `load`, as long as that is not there: it may have found no room yet."""
    job: _Job | None = None
    """What it is doing."""


@dataclass(eq=False)
class _Job:
    """Ranks that are given out together."""

    ranks: list[int]
    actor: _Actor | None = None
    result: Any = None


class Actors(list[_Actor]):
    """The driver's actors; they outlast an executor that ends well."""

    def start(self, options: dict[str, Any]) -> None:
        import ray

        options = {**options, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self.append(_Actor(ray.remote(_Worker).options(**options).remote()))

    def lose(self, actor: _Actor) -> None:
        """Forgets one that has died, or does not answer."""
        import ray

        if actor in self:
            self.remove(actor)
            ray.kill(actor.handle)

    def end(self) -> None:
        """Kills all of them and waits until what they were doing has ended."""
        import ray

        results = [actor.loading for actor in self if actor.loading] + [one.job.result for one in self if one.job]
        for actor in self:
            ray.kill(actor.handle)
        self.clear()
        if results:
            ray.wait(results, num_returns=len(results), timeout=LEAVE_SECONDS)


class TaskManager(RayTaskManager):
    """Gives jobs to actors as they get free. Its interface is `RayTaskManager`'s, as `RayPipelineExecutor.run` uses it.

    Where that one returns an object reference, or a future of one, this one returns a job.
    """

    def __init__(self, nodes_per_task: int, timeout_manager: Any, actors: Actors, line: Line):
        super().__init__(nodes_per_task, timeout_manager)
        self._actors, self._line = actors, line
        self._waiting: deque[_Job] = deque()
        self._running: dict[Any, _Job] = {}
        self._losses: Counter[int | str] = Counter()
        self._alone_since = time.monotonic()
        """Since when no actor was ready."""

    def submit_task(self, executor_ref: Any, ranks_to_submit: Sequence[int], remote_options: dict[str, Any]) -> _Job:
        self._executor, self._options = executor_ref, remote_options
        job = _Job(list(ranks_to_submit))
        self._waiting.append(job)
        return job

    def wait(self, tasks: list[_Job], timeout: float = 0, num_returns: int = 1) -> tuple[list[_Job], list[_Job]]:
        """The jobs that have ended, one or none, and the others.

        Raises:
            HeadwaterError: the cluster has had no room for an actor for ten minutes, or actors die as they start.
        """
        import ray

        self._line.check()
        self._give_out(len(tasks))
        loading = {actor.loading: actor for actor in self._actors if actor.loading}
        ready, _ = ray.wait([*loading, *self._running], num_returns=1, timeout=min(timeout, _POLL_SECONDS))
        finished = []
        for result in ready:
            if result in loading:
                self._has_loaded(loading[result])
            else:
                finished.append(self._running.pop(result))
        return finished, [job for job in tasks if job not in finished]

    def task_done(self, task: _Job) -> tuple[bool, list[int] | None]:
        """Whether it went well, and the ranks to give out again: those of a lost actor.

        Raises:
            Failed: a rank raised something.
            HeadwaterError: a rank was lost once too often.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        actor = task.actor
        assert actor is not None
        try:
            raised = ray.get(task.result)
        except RayTaskError:
            raise
        except RayError as error:
            self._actors.lose(actor)
            self._alone_since = time.monotonic()
            self._lost(task.ranks[0], f"the process at work on task {task.ranks[0]} was lost", error)
            return False, task.ranks
        actor.job = None
        if raised is not None:
            raise Failed(raised)
        for rank in task.ranks:
            self._line.tell(rank)
        return True, None

    def clean_up(self) -> None:
        """Ends the actors if any is at work, or about to be."""
        super().clean_up()
        if self._waiting or any(actor.job for actor in self._actors):
            self._actors.end()

    def _give_out(self, actors: int) -> None:
        """Gives jobs to those that are ready, of at most so many actors."""
        while len(self._actors) < actors:
            self._actors.start(self._options)
        for actor in self._actors:
            if actor.executor is not self._executor:
                actor.executor = self._executor
                actor.loading = actor.handle.load.remote(self._executor)
        ready = [actor for actor in self._actors if not actor.loading]
        if ready:
            self._alone_since = time.monotonic()
        elif time.monotonic() - self._alone_since > _START_SECONDS:
            raise HeadwaterError(
                f"corpus: the Ray cluster had no CPU free for {_START_SECONDS / 60:.0f} minutes; see `ray status`"
            )
        for actor in ready:
            if self._waiting and not actor.job:
                job = self._waiting.popleft()
                job.actor, job.result = actor, actor.handle.run.remote(job.ranks)
                actor.job = self._running[job.result] = job

    def _has_loaded(self, actor: _Actor) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        loading, actor.loading = actor.loading, None
        try:
            ray.get(loading)
        except RayTaskError as error:
            raise HeadwaterError(
                "corpus: a machine of the Ray cluster cannot read the pipeline, see that all have the same version of "
                f"Headwater: {in_short(error)}"
            ) from error
        except RayError as error:
            self._actors.lose(actor)
            self._lost("start", "a process could not start", error)

    def _lost(self, what: int | str, told: str, error: Exception) -> None:
        self._losses[what] += 1
        if self._losses[what] > _LOSSES:
            raise HeadwaterError(
                f"corpus: on the Ray cluster {told} {self._losses[what]} times: {in_short(error)} "
                "If it was killed, then probably for want of memory"
            ) from error


def in_short(error: Exception) -> str:
    """First and last line of an error of Ray, which says what happened where, and why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    return re.sub(r"\x1b\[\d+m", "", text)
