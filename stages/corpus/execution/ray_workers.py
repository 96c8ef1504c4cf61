"""Workers on a Ray cluster; the counterpart of `local_workers`."""

from __future__ import annotations

import multiprocessing
import multiprocessing.process
from collections.abc import Callable, Sequence
from pathlib import Path

from datatrove.pipeline.base import PipelineStep

from stages.corpus.execution.executor import FILE_VISIBILITY_SECONDS, Workers, hide_main_module
from stages.corpus.execution.ray_actors import EXIT_TIMEOUT_SECONDS
from stages.corpus.execution.ray_driver import RayExecutor, drive
from stages.store import HeadwaterError


class RayWorkers(Workers):
    """Actors on the Ray cluster at `address`, with one CPU each; `auto` means RAY_ADDRESS, or this machine's cluster.

    As many as the cluster has free CPUs, at most `count`; ranks do not wait for actors that cannot start.
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
        executor.check_complete(FILE_VISIBILITY_SECONDS)
        for rank in sorted(left):  # they were complete before
            done(rank)

    def preload(self, load: Callable[[], None]) -> None:
        """Does nothing: actors load with the first rank that needs it."""

    def _start(self) -> None:
        """Starts the driver, which connects to the cluster.

        Raises:
            HeadwaterError: there is no such cluster, or it did not answer in time.
        """
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._driver = context.Process(target=drive, args=(theirs, self._address), name="ray-driver", daemon=True)
        try:
            with hide_main_module():
                self._driver.start()
            theirs.close()
            self._receive()
        except BaseException:
            self._end()
            raise

    def _receive(self) -> int | None:
        """The driver's next message: a completed rank, or None when the request is complete.

        Raises:
            Exception: what a rank or the driver raised.
            HeadwaterError: the driver has died.
        """
        try:
            message = self._pipe.recv()
        except (EOFError, ConnectionResetError) as error:
            raise HeadwaterError("corpus: the process that held the connection to Ray was killed; run again") from error
        if isinstance(message, Exception):
            raise message
        assert message is None or isinstance(message, int)
        return message

    def _end(self) -> None:
        """Stops the driver, and its actors with it."""
        driver, self._driver = self._driver, None
        if driver is None:
            return
        self._pipe.close()
        if driver.pid is None:  # it did not even start
            return
        driver.join(2 * EXIT_TIMEOUT_SECONDS)
        if driver.exitcode is None:
            driver.kill()
            driver.join()
        driver.close()
