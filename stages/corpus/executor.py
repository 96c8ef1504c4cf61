"""datatrove's local executor on processes that end: with the stage, with an error, and with their parent.

`LocalPipelineExecutor.run` hangs for ever when a worker is killed (multiprocessing's pool waits for it), leaves a
manager process behind when it is killed itself, and prints every line of its log. Its ranks, pipelines, statistics
and completion files are kept here; only the pool around them is another one.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from types import ModuleType, TracebackType

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from stages.artifact import HeadwaterError


class Workers:
    """A pool of processes for several executors one after the other; one worker means: in this process.

    Use as a context manager: leaving it ends the processes, after an error at once.
    """

    def __init__(self, count: int):
        self._pool: ProcessPoolExecutor | None = None
        if count > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker)

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._pool:
            return
        if kind is not None:
            for process in list((self._pool._processes or {}).values()):
                process.terminate()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def run(self, executor: Executor, ranks: Sequence[int], done: Callable[[int], None]) -> None:
        """Runs all ranks; `done(rank)` is called in this process as each one ends.

        Raises:
            HeadwaterError: a process was killed. What a rank itself raises is passed on.
        """
        if not self._pool:
            for rank in ranks:
                run_rank(executor, rank)
                done(rank)
            return
        try:
            with _no_main_module():
                futures: dict[Future[None], int] = {self._pool.submit(run_rank, executor, rank): rank for rank in ranks}
            for future in as_completed(futures):
                future.result()
                done(futures[future])
        except BrokenProcessPool as error:
            raise HeadwaterError(
                "corpus: a worker process was killed, probably for want of memory; run again with fewer workers"
            ) from error


class Executor(LocalPipelineExecutor):
    """Runs a pipeline for ranks 0 ... tasks-1 and makes sure that every one of them was completed."""

    def __init__(self, pipeline: Sequence[PipelineStep], tasks: int, logging_dir: Path):
        super().__init__(list(pipeline), tasks=tasks, workers=1, logging_dir=str(logging_dir))

    def execute(self, workers: Workers, done: Callable[[int], None]) -> None:
        """Runs all ranks on `workers`.

        Raises:
            HeadwaterError: a rank left no mark of completion.
        """
        workers.run(self, range(self.tasks), done)
        missing = self.get_incomplete_ranks(skip_completed=True)
        if missing:
            raise HeadwaterError(f"corpus: ranks {missing[:5]} of {self.tasks} did not complete; run again")

    def _set_distributed_environment(self, node_rank: int) -> None:
        """datatrove sets variables for multi-node jobs; nothing here reads them, and they would outlive the run."""


def run_rank(executor: Executor, rank: int) -> None:
    """Runs one rank on its own copy of the pipeline, quietly: errors are raised, not printed."""
    logger.disable("datatrove")
    try:
        copied = deepcopy(executor)
        copied._run_for_rank(rank, local_rank=1)
    finally:
        logger.enable("datatrove")


@contextmanager
def _no_main_module() -> Iterator[None]:
    """Hides `__main__` while processes are started.

    A spawned process imports its parent's main module again, which for a flow run is all of Prefect, and for a script
    without a guard would be the whole run. Nothing that is sent to workers stands there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _start_worker() -> None:
    """Threads of native libraries off (the processes are the parallelism), and an end when the parent ends."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    import pyarrow

    pyarrow.set_cpu_count(1)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)
