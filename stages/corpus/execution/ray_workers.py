"""Workers on a Ray cluster: what `local_workers` are on one machine."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
from collections.abc import Callable, Sequence
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from stages.corpus.execution.executor import SEEN_SECONDS, Workers, no_main_module
from stages.corpus.execution.ray_actors import LEAVE_SECONDS
from stages.corpus.execution.ray_driver import RayExecutor, drive
from stages.store import HeadwaterError


class RayWorkers(Workers):
    """Processes (actors) on the Ray cluster at `address`, each of one CPU; `auto` is RAY_ADDRESS, or this machine's.

    As many as the cluster has room for, at most `count`; ranks do not wait for those that do not come.
    """

    def __init__(self, count: int, address: str):
        self._count, self._address = count, address
        self._driver: multiprocessing.process.BaseProcess | None = None

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
        """Connects.

        Raises:
            HeadwaterError: there is no such cluster, or it has not answered in time.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._driver = context.Process(target=drive, args=(theirs, self._address), name="ray-driver", daemon=True)
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
        driver.join(2 * LEAVE_SECONDS)
        if driver.exitcode is None:
            driver.kill()
            driver.join()
        driver.close()
