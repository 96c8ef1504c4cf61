"""datatrove's Ray executor with workers that last, errors that arrive and an end that ends.

`RayPipelineExecutor.run` is used as it is: how many ranks are under way, which are given out again. What it does with
them is the work of its `RayTaskManager`, of which there is another one here, because datatrove's

- starts a process and a placement group for each rank: 1.5 s (measured) where the rank may take a tenth of one,
- runs the rank in a child of that process, and waits for ever if the child is killed, or if no process can be had,
- logs what a rank raises at debug level, and returns as if nothing had happened,
- and when interrupted leaves behind what was just being started.

The connection to the cluster is held by a process of its own (the driver), so that the caller's signal handlers stay
the caller's, so that a Ray which the training stage has in the same process is another one, and so that all is over
when that process is: Ray ends a driver's actors with it.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import multiprocessing.process
import os
import re
import signal
import socket
import time
import traceback
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import datatrove.executor.ray
from datatrove.executor.ray import RayPipelineExecutor, RayTaskManager
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from stages.artifact import HeadwaterError
from stages.corpus.executor import SEEN_SECONDS, Ranks, Workers, no_main_module, one_thread, portable

_LOSSES = 3
"""So often a rank, or the start of an actor, may lose its process or machine."""

_START_SECONDS = 600.0
"""How long a cluster may have no room for a single actor."""

_LEAVE_SECONDS = 10.0
"""How long actors and driver may take to end before they are left to Ray, or killed."""

_CONNECT_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_POLL_SECONDS = 0.2
"""How often the driver looks whether its parent is still there."""

_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}


class _Cancelled(Exception):
    """The parent has left, or wants no more."""


class _Failed(Exception):
    """What a rank raised: `args[0]`."""


class RayExecutor(Ranks, RayPipelineExecutor):
    """A pipeline and its ranks 0 ... tasks-1 on a cluster, all of whose machines see `logging_dir`."""

    def __init__(self, pipeline: Sequence[PipelineStep], tasks: int, logging_dir: Path, workers: int):
        logger.disable("datatrove")  # it warns that a folder is a folder
        try:
            super().__init__(
                list(pipeline), tasks=tasks, workers=workers, logging_dir=str(logging_dir), mem_per_cpu_gb=0
            )
        finally:
            logger.enable("datatrove")


class RayWorkers(Workers):
    """Processes (actors) on the Ray cluster at `address`, each of one CPU; `auto` is RAY_ADDRESS, or this machine's.

    As many as the cluster has room for, at most `count`; ranks do not wait for those that do not come.
    """

    def __init__(self, count: int, address: str):
        self._count, self._address = count, address
        self._driver: multiprocessing.process.BaseProcess | None = None

    def __enter__(self) -> RayWorkers:
        """Connects.

        Raises:
            HeadwaterError: there is no such cluster, or it has not answered in time.
        """
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def run(
        self,
        pipeline: Sequence[PipelineStep],
        tasks: int,
        logging_dir: Path,
        done: Callable[[int], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        executor = RayExecutor(pipeline, tasks, logging_dir, self._count)
        left = set(range(tasks))
        try:
            if self._driver is None:
                self._start()
            self._pipe.send(executor)
            if meanwhile:
                meanwhile()
            while (rank := self._receive()) is not None:
                left.discard(rank)
                done(rank)
        except BaseException:
            self._end()
            raise
        executor.check(SEEN_SECONDS)
        for rank in sorted(left):  # they had been completed before
            done(rank)

    def prepare(self, load: Callable[[], None]) -> None:
        """Nothing: actors load with the first rank that needs it."""

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._driver = context.Process(target=_drive, args=(theirs, self._address), name="ray-driver", daemon=True)
        try:
            with no_main_module():
                self._driver.start()
            theirs.close()
            self._receive()
        except BaseException:
            self._end()
            raise

    def _receive(self) -> int | None:
        """The driver's next word: a rank that is done, or None: all of what was asked for.

        Raises:
            Exception: what a rank raised, or the driver.
            HeadwaterError: the driver is gone.
        """
        try:
            told = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise HeadwaterError("corpus: the process that held the connection to Ray was killed; run again") from error
        if isinstance(told, Exception):
            raise told
        assert told is None or isinstance(told, int)
        return told

    def _end(self) -> None:
        """Ends the driver, and with it its actors."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        self._pipe.close()
        if driver.pid is None:  # it did not even start
            return
        driver.join(2 * _LEAVE_SECONDS)
        if driver.exitcode is None:
            driver.kill()
            driver.join()
        driver.close()


class _Line:
    """The driver's end of the pipe."""

    def __init__(self, pipe: multiprocessing.connection.Connection):
        self._pipe = pipe

    def hear(self) -> Any:
        try:
            return self._pipe.recv()
        except (EOFError, OSError) as error:
            raise _Cancelled from error

    def tell(self, what: int | Exception | None) -> None:
        try:
            self._pipe.send(what)
        except OSError as error:
            raise _Cancelled from error

    def check(self) -> None:
        """The parent says nothing while ranks run: there is something to hear if it has closed the pipe."""
        if self._pipe.poll():
            raise _Cancelled


def _drive(pipe: multiprocessing.connection.Connection, address: str) -> None:
    """The driver's life: it connects, runs one executor after the other, and ends when its parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # Ray prints what it notices to standard output, which is the parent's
    os.environ.update(_ENVIRONMENT)
    logger.disable("datatrove")
    line, actors = _Line(pipe), _Actors()
    try:
        try:
            _connect(address)
        except Exception as error:
            line.tell(HeadwaterError(f"corpus: no Ray cluster at {address} (corpus.ray_address): {_in_short(error)}"))
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the parent; Ray has set a handler of its own
        datatrove.executor.ray.RayTaskManager = partial(_TaskManager, actors=actors, line=line)
        line.tell(None)
        while True:
            try:
                _run(line.hear())
            except _Cancelled:
                raise
            except Exception as error:
                line.tell(portable(error))
            else:
                line.tell(None)
    except _Cancelled:
        actors.end()
        import ray

        ray.shutdown()


def _run(executor: RayExecutor) -> None:
    try:
        executor.run()
    except _Failed as failed:
        raise failed.args[0] from None
    except FileNotFoundError:  # it adds up the ranks' statistics, of which this machine sees none
        executor.check(SEEN_SECONDS)
        raise


def _connect(address: str) -> None:
    where = re.fullmatch(r"\[?([^/\]]+)\]?:(\d+)", address)
    if where:  # Ray itself would try for a minute and more
        socket.create_connection((where[1], int(where[2])), timeout=_CONNECT_SECONDS).close()
        if where[1] in _LOOPBACK:
            # Ray takes it for a mistake and asks at the machine's address, unless it is told that this is no cluster.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    ray.init(address=address, logging_level="ERROR", log_to_driver=False)


class _Worker:
    """The actor: it runs ranks in its own process, so that Ray knows when that is killed."""

    def __init__(self) -> None:
        one_thread()

    def load(self, executor: RayExecutor) -> None:
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


class _Actors(list[_Actor]):
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
            ray.wait(results, num_returns=len(results), timeout=_LEAVE_SECONDS)


class _TaskManager(RayTaskManager):
    """Gives jobs to actors as they get free. Its interface is `RayTaskManager`'s, as `RayPipelineExecutor.run` uses it.

    Where that one returns an object reference, or a future of one, this one returns a job.
    """

    def __init__(self, nodes_per_task: int, timeout_manager: Any, actors: _Actors, line: _Line):
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
            _Failed: a rank raised something.
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
            raise _Failed(raised)
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
                f"Headwater: {_in_short(error)}"
            ) from error
        except RayError as error:
            self._actors.lose(actor)
            self._lost("start", "a process could not start", error)

    def _lost(self, what: int | str, told: str, error: Exception) -> None:
        self._losses[what] += 1
        if self._losses[what] > _LOSSES:
            raise HeadwaterError(
                f"corpus: on the Ray cluster {told} {self._losses[what]} times: {_in_short(error)} "
                "If it was killed, then probably for want of memory"
            ) from error


def _in_short(error: Exception) -> str:
    """First and last line of an error of Ray, which says what happened where, and why."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    text = lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"
    return re.sub(r"\x1b\[\d+m", "", text)
