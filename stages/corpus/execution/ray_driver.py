"""The driver: the process that holds the connection to a Ray cluster.

It is one of its own so that the caller's signal handlers stay the caller's, so that a Ray which the training stage has
in the same process is another one, and so that all is over when that process is: Ray ends a driver's actors with it.
"""

from __future__ import annotations

import multiprocessing.connection
import os
import re
import signal
import socket
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import datatrove.executor.ray
from datatrove.executor.ray import RayPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger

from stages.corpus.execution.executor import SEEN_SECONDS, Ranks, portable
from stages.corpus.execution.ray_actors import Actors, Cancelled, Failed, Line, TaskManager, in_short
from stages.store import HeadwaterError

_CONNECT_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}


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


def drive(pipe: multiprocessing.connection.Connection, address: str) -> None:
    """The driver's life: it connects, runs one executor after the other, and ends when its parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # Ray prints what it notices to standard output, which is the parent's
    os.environ.update(_ENVIRONMENT)
    logger.disable("datatrove")
    line, actors = Line(pipe), Actors()
    try:
        try:
            _connect(address)
        except Exception as error:
            line.tell(HeadwaterError(f"corpus: no Ray cluster at {address} (corpus.ray_address): {in_short(error)}"))
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is for the parent; Ray has set a handler of its own
        datatrove.executor.ray.RayTaskManager = partial(TaskManager, actors=actors, line=line)
        line.tell(None)
        while True:
            try:
                _run(line.hear())
            except Cancelled:
                raise
            except Exception as error:
                line.tell(portable(error))
            else:
                line.tell(None)
    except Cancelled:
        actors.end()
        import ray

        ray.shutdown()


def _run(executor: RayExecutor) -> None:
    try:
        executor.run()
    except Failed as failed:
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
