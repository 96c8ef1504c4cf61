"""The driver: the process that holds the connection to a Ray cluster.

It is a separate process so that Ray does not change the caller's signal handlers, does not mix with the training
stage's Ray in the same process, and so that killing it ends everything: Ray ends a driver's actors with it.
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

from stages.corpus.execution.executor import FILE_VISIBILITY_SECONDS, RankRunner, picklable
from stages.corpus.execution.ray_actors import Actors, Cancelled, ParentPipe, RankFailed, TaskManager, summarize
from stages.store import HeadwaterError

_CONNECT_SECONDS = 10.0
_LOOPBACK = ("127.0.0.1", "::1", "localhost")
_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DISABLE_IMPORT_WARNING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DISABLE_FAILURE_SIGNAL_HANDLER": "1",
}


class RayExecutor(RankRunner, RayPipelineExecutor):
    """A pipeline and its ranks 0 ... tasks-1 on a cluster whose machines share `logging_dir`."""

    def __init__(self, pipeline: Sequence[PipelineStep], tasks: int, logging_dir: Path, workers: int):
        logger.disable("datatrove")  # it warns about a local `logging_dir`
        try:
            super().__init__(
                list(pipeline), tasks=tasks, workers=workers, logging_dir=str(logging_dir), mem_per_cpu_gb=0
            )
        finally:
            logger.enable("datatrove")


def drive(pipe: multiprocessing.connection.Connection, address: str) -> None:
    """Main function of the driver: connects, runs executors one by one, and exits when its parent closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)  # Ray prints messages to standard output, which is the parent's
    os.environ.update(_ENVIRONMENT)
    logger.disable("datatrove")
    parent, actors = ParentPipe(pipe), Actors()
    try:
        try:
            _connect(address)
        except Exception as error:
            parent.send(HeadwaterError(f"corpus: no Ray cluster at {address} (corpus.ray_address): {summarize(error)}"))
            return
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it is meant for the parent; Ray has set its own handler
        datatrove.executor.ray.RayTaskManager = partial(TaskManager, actors=actors, parent=parent)
        parent.send(None)
        while True:
            try:
                _run(parent.recv())
            except Cancelled:
                raise
            except Exception as error:
                parent.send(picklable(error))
            else:
                parent.send(None)
    except Cancelled:
        actors.kill_all()
        import ray

        ray.shutdown()


def _run(executor: RayExecutor) -> None:
    try:
        executor.run()
    except RankFailed as failed:
        raise failed.args[0] from None
    except FileNotFoundError:  # it adds up the ranks' statistics, whose files this machine cannot see
        executor.check_complete(FILE_VISIBILITY_SECONDS)
        raise


def _connect(address: str) -> None:
    where = re.fullmatch(r"\[?([^/\]]+)\]?:(\d+)", address)
    if where:  # Ray itself would retry for more than a minute
        socket.create_connection((where[1], int(where[2])), timeout=_CONNECT_SECONDS).close()
        if where[1] in _LOOPBACK:
            # Ray replaces a loopback address by the machine's own, unless this says that it is not a cluster.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
    import ray

    ray.init(address=address, logging_level="ERROR", log_to_driver=False)
