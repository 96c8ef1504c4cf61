"""What the passes run on: datatrove's executors, with their ranks, statistics and completion files unchanged.

This module has what local workers and Ray workers share; see `local_workers` and `ray_workers`.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
import shutil
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from copy import deepcopy
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, Self, TypeVar

from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger

from stages.corpus.config import CorpusConfig
from stages.store import ArtifactWriter, ConfigError, HeadwaterError, StoreError

FILE_VISIBILITY_SECONDS = 10.0
"""How long a network file system may take to show files that another machine has written."""

T = TypeVar("T")


class Shared(tuple[T, ...]):
    """A sequence that ranks read and never change: each rank's copy of the pipeline shares it.

    For lists with an entry for each rank: copied for each rank, their cost would grow with the square of the ranks.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Shared, (tuple(self),)


class RankRunner(PipelineExecutor):
    """Runs a rank, locally or on a cluster: on its own copy of the pipeline, without log output, with errors unchanged.

    datatrove's log file for each rank is omitted: it costs more than the work of a small rank.
    """

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> PipelineStats:
        if self.is_rank_completed(rank):
            return PipelineStats()
        pipeline = deepcopy(self.pipeline)
        logger.disable("datatrove")
        try:
            data: Any = None
            for step in pipeline:
                data = step(data, rank, self.world_size) if callable(step) else step
            if data:
                deque(data, maxlen=0)
        finally:
            logger.enable("datatrove")
        stats = PipelineStats(pipeline)
        with self.logging_dir.open(f"stats/{rank:05d}.json", "w") as file:
            stats.save_to_disk(file)
        self.mark_rank_as_completed(rank)
        return stats

    def check_complete(self, timeout_seconds: float = 0) -> None:
        """Waits until every rank has its completion file.

        Raises:
            HeadwaterError: one is missing after the timeout.
        """
        deadline = time.monotonic() + timeout_seconds
        while missing := self.get_incomplete_ranks(skip_completed=True):
            if time.monotonic() >= deadline:
                raise HeadwaterError(
                    f"corpus: {len(missing)} of {self.world_size} tasks ended without a completion file in "
                    f"{self.logging_dir.path}, the first is task {missing[0]}; with `executor: ray` check that all "
                    "machines share that folder (`scratch`), else run again"
                )
            time.sleep(0.2)

    def save_executor_as_json(self, indent: int = 4) -> None:
        """Does nothing; datatrove would write the pipeline's attributes, some with an entry for each rank."""

    def _set_distributed_environment(self, node_rank: int) -> None:
        """Does nothing; datatrove would set variables for multi-node jobs, which nothing here reads."""


class Workers(ABC):
    """Runs pipelines, one after the other. A context manager; its processes have ended when it exits."""

    def __enter__(self) -> Self:
        """Starts processes ahead of the first pipeline.

        Raises:
            HeadwaterError: they cannot be started or reached.
        """
        self._start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    @abstractmethod
    def _start(self) -> object: ...

    @abstractmethod
    def _end(self) -> None: ...

    @abstractmethod
    def run(
        self,
        pipeline: Sequence[PipelineStep],
        tasks: int,
        logging_dir: Path,
        done: Callable[[int], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Runs the pipeline for ranks 0 ... tasks-1; `done(rank)` is called in this thread after each one.
        `meanwhile` is called in this thread after the workers have started.

        Each rank gets its own copy of the steps. Its completion file is `completions/{rank:05}` in `logging_dir`;
        ranks that have one are not run again.

        Raises:
            Exception: what a rank raised, unchanged; the others are stopped.
            HeadwaterError: a process was killed, or a rank has no completion file.
        """

    @abstractmethod
    def preload(self, load: Callable[[], None]) -> None:
        """Calls `load` in idle processes, to load what the next pipeline needs; does not wait."""


def make_workers(config: CorpusConfig) -> Workers:
    """The workers that the config asks for. Ray itself is only imported by the processes that use it."""
    if config.executor == "ray":
        from stages.corpus.execution.ray_workers import RayWorkers

        return RayWorkers(config.workers, config.ray_address)
    from stages.corpus.execution.local_workers import LocalWorkers

    return LocalWorkers(config.workers)


@contextmanager
def work_folder(config: CorpusConfig, writer: ArtifactWriter) -> Iterator[Path]:
    """A temporary folder for intermediate files that all workers can access.

    It is in `scratch` if the config names one, else in the writer's folder. Files in `scratch` of a killed run for the
    same artifact are removed.

    Raises:
        ConfigError: `scratch` is not a folder, or is needed and not set.
        StoreError: the folder cannot be created.
    """
    if not config.scratch:
        if config.executor == "ray" and not writer.store.is_local:
            raise ConfigError(
                f"corpus: the machines of a Ray cluster must share intermediate files, which the store at "
                f"{writer.store.url} cannot hold; set corpus.scratch to a folder that all machines can access"
            )
        yield writer.work("")
        return
    if "://" in config.scratch:
        raise ConfigError(f"corpus: corpus.scratch is {config.scratch}; it must be a folder of a file system")
    name = hashlib.sha256(writer.store.where(writer.folder).encode()).hexdigest()[:16]
    below = Path(config.scratch).expanduser().absolute() / f"headwater-corpus-{name}"
    shutil.rmtree(below, ignore_errors=True)
    # A folder of its own: a run that was wrongly taken for dead still writes under the names that it had.
    folder = below / secrets.token_hex(4)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"corpus: cannot create {folder} (corpus.scratch): {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # another run's folder is in it
            below.rmdir()


def picklable(error: Exception) -> Exception:
    """The error itself, or a HeadwaterError with its message if it cannot be pickled and unpickled.

    A pool whose worker sends an exception that cannot be unpickled treats the worker as killed.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return HeadwaterError(f"corpus: {type(error).__name__}: {error}")
    return error


@contextmanager
def hide_main_module() -> Iterator[None]:
    """Hides `__main__` while processes are started.

    A spawned process imports its parent's main module again, which for a flow run is all of Prefect, and for a script
    without a guard would be the whole run. Nothing that is sent to workers is defined there.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def use_one_thread() -> None:
    """Turns off threads of native libraries in this process, since the processes run in parallel."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    import pyarrow

    pyarrow.set_cpu_count(1)
