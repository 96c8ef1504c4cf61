"""A Ray task manager for datatrove, with actors that are reused from one rank to the next.

`RayPipelineExecutor.run` is used unchanged: it decides how many ranks are in flight and which are retried. Its
`RayTaskManager` is replaced by the one here, because datatrove's

- starts a process and a placement group for each rank: 1.5 s (measured), where the rank may take 0.1 s,
- runs the rank in a child of that process, and waits forever if the child is killed, or if no process can start,
- logs what a rank raises at debug level, and reports success,
- and when interrupted leaves processes behind that were just starting.
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

from stages.corpus.execution.executor import picklable, use_one_thread
from stages.store import HeadwaterError

_MAX_LOSSES = 3
"""How often a rank, or the start of an actor, may lose its process or machine."""

_START_TIMEOUT_SECONDS = 600.0
"""How long a cluster may have no free CPU for any actor."""

EXIT_TIMEOUT_SECONDS = 10.0
"""How long actors and driver may take to exit before they are left to Ray, or killed."""

_POLL_SECONDS = 0.2
"""How often the driver checks whether its parent still runs."""


class Cancelled(Exception):
    """The parent has exited, or has closed the pipe."""


class RankFailed(Exception):
    """What a rank raised: `args[0]`."""


class ParentPipe:
    """The driver's end of the pipe to its parent. Raises Cancelled if the parent has closed its end."""

    def __init__(self, pipe: multiprocessing.connection.Connection):
        self._pipe = pipe

    def recv(self) -> Any:
        """The parent's next message; waits for it."""
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise Cancelled from error

    def send(self, what: int | Exception | None) -> None:
        """Sends a completed rank, an exception, or None: all ranks are done."""
        try:
            self._pipe.send(what)
        except OSError as error:
            raise Cancelled from error

    def check(self) -> None:
        """Raises Cancelled if the parent has closed the pipe; it sends nothing while ranks run."""
        if self._pipe.poll():
            raise Cancelled


class _Worker:
    """The actor: it runs ranks in its own process, so that Ray notices when that is killed."""

    def __init__(self) -> None:
        use_one_thread()

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
            return picklable(error)
        return None


@dataclass(eq=False)
class _Actor:
    handle: Any
    executor: Any = None
    """Reference to the executor that it has loaded or is loading."""
    loading: Any = None
    """Pending result of its `load`; the actor may still be waiting for a CPU."""
    job: _Job | None = None
    """Its current job."""


@dataclass(eq=False)
class _Job:
    """Ranks that are dispatched together."""

    ranks: list[int]
    actor: _Actor | None = None
    result: Any = None


class Actors(list[_Actor]):
    """The driver's actors; they are reused by the next executor after a success."""

    def start(self, options: dict[str, Any]) -> None:
        import ray

        options = {**options, "max_restarts": 0, "scheduling_strategy": "SPREAD"}
        self.append(_Actor(ray.remote(_Worker).options(**options).remote()))

    def discard(self, actor: _Actor) -> None:
        """Removes and kills one that has died or does not answer."""
        import ray

        if actor in self:
            self.remove(actor)
            ray.kill(actor.handle)

    def kill_all(self) -> None:
        """Kills all actors and waits until their jobs have ended."""
        import ray

        results = [actor.loading for actor in self if actor.loading] + [one.job.result for one in self if one.job]
        for actor in self:
            ray.kill(actor.handle)
        self.clear()
        if results:
            ray.wait(results, num_returns=len(results), timeout=EXIT_TIMEOUT_SECONDS)


class TaskManager(RayTaskManager):
    """Dispatches jobs to free actors, with the interface of `RayTaskManager` that `RayPipelineExecutor.run` uses.

    It returns jobs where that one returns object references, or futures of them.
    """

    def __init__(self, nodes_per_task: int, timeout_manager: Any, actors: Actors, parent: ParentPipe):
        super().__init__(nodes_per_task, timeout_manager)
        self._actors, self._parent = actors, parent
        self._waiting: deque[_Job] = deque()
        self._running: dict[Any, _Job] = {}
        self._losses: Counter[int | str] = Counter()
        self._no_actor_since = time.monotonic()
        """Since when no actor has been ready."""

    def submit_task(self, executor_ref: Any, ranks_to_submit: Sequence[int], remote_options: dict[str, Any]) -> _Job:
        self._executor, self._options = executor_ref, remote_options
        job = _Job(list(ranks_to_submit))
        self._waiting.append(job)
        return job

    def wait(self, tasks: list[_Job], timeout: float = 0, num_returns: int = 1) -> tuple[list[_Job], list[_Job]]:
        """The jobs that have ended (one or none) and the others.

        Raises:
            HeadwaterError: the cluster had no free CPU for ten minutes, or actors die while starting.
            Cancelled: the parent has closed the pipe.
        """
        import ray

        self._parent.check()
        self._dispatch(len(tasks))
        loading = {actor.loading: actor for actor in self._actors if actor.loading}
        ready, _ = ray.wait([*loading, *self._running], num_returns=1, timeout=min(timeout, _POLL_SECONDS))
        finished = []
        for result in ready:
            if result in loading:
                self._on_loaded(loading[result])
            else:
                finished.append(self._running.pop(result))
        return finished, [job for job in tasks if job not in finished]

    def task_done(self, task: _Job) -> tuple[bool, list[int] | None]:
        """Whether the job succeeded, and the ranks to run again: those of a lost actor.

        Raises:
            RankFailed: a rank raised an exception.
            HeadwaterError: a rank was lost too often.
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
            self._actors.discard(actor)
            self._no_actor_since = time.monotonic()
            self._count_loss(task.ranks[0], f"the process that ran task {task.ranks[0]} was lost", error)
            return False, task.ranks
        actor.job = None
        if raised is not None:
            raise RankFailed(raised)
        for rank in task.ranks:
            self._parent.send(rank)
        return True, None

    def clean_up(self) -> None:
        """Kills the actors if any has a job, or jobs are waiting."""
        super().clean_up()
        if self._waiting or any(actor.job for actor in self._actors):
            self._actors.kill_all()

    def _dispatch(self, actors: int) -> None:
        """Starts up to so many actors, and gives waiting jobs to those that are ready."""
        while len(self._actors) < actors:
            self._actors.start(self._options)
        for actor in self._actors:
            if actor.executor is not self._executor:
                actor.executor = self._executor
                actor.loading = actor.handle.load.remote(self._executor)
        ready = [actor for actor in self._actors if not actor.loading]
        if ready:
            self._no_actor_since = time.monotonic()
        elif time.monotonic() - self._no_actor_since > _START_TIMEOUT_SECONDS:
            raise HeadwaterError(
                f"corpus: the Ray cluster had no free CPU for {_START_TIMEOUT_SECONDS:.0f} seconds; see `ray status`"
            )
        for actor in ready:
            if self._waiting and not actor.job:
                job = self._waiting.popleft()
                job.actor, job.result = actor, actor.handle.run.remote(job.ranks)
                actor.job = self._running[job.result] = job

    def _on_loaded(self, actor: _Actor) -> None:
        import ray
        from ray.exceptions import RayError, RayTaskError

        loading, actor.loading = actor.loading, None
        try:
            ray.get(loading)
        except RayTaskError as error:
            raise HeadwaterError(
                "corpus: a machine of the Ray cluster cannot unpickle the pipeline; check that all have the same "
                f"version of Headwater: {summarize(error)}"
            ) from error
        except RayError as error:
            self._actors.discard(actor)
            self._count_loss("start", "a process could not start", error)

    def _count_loss(self, what: int | str, message: str, error: Exception) -> None:
        self._losses[what] += 1
        if self._losses[what] > _MAX_LOSSES:
            raise HeadwaterError(
                f"corpus: on the Ray cluster {message} {self._losses[what]} times: {summarize(error)} "
                "If it was killed, memory probably ran out"
            ) from error


def summarize(error: Exception) -> str:
    """First and last line of a Ray error: what failed where, and why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    return re.sub(r"\x1b\[\d+m", "", text)
