"""What the passes run on: datatrove's executors, whose ranks, statistics and marks of completion are kept as they are.

Here is what they have in common; see `local_workers` and `ray_workers`.
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

SEEN_SECONDS = 10.0
"""How long a network file system may take to show what another machine has written."""

T = TypeVar("T")


class Shared(tuple[T, ...]):
    """A sequence that every rank reads and none changes: a rank's copy of the pipeline shares it.

    For lists with an entry a rank: copied with each rank, they would make the work grow with the square of the ranks.
    """

    def __deepcopy__(self, memo: dict[int, Any]) -> Shared[T]:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        return Shared, (tuple(self),)


class Ranks(PipelineExecutor):
    """How a rank is run, here as on a cluster: on its own copy of the pipeline, quietly, errors raised as they are.

    The log file that datatrove gives each rank is left out: it costs more than a small rank's work.
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

    def check(self, seconds: float = 0) -> None:
        """Makes sure that every rank left its mark of completion, within so many seconds.

        Raises:
            HeadwaterError: one did not.
        """
        deadline = time.monotonic() + seconds
        while missing := self.get_incomplete_ranks(skip_completed=True):
            if time.monotonic() >= deadline:
                raise HeadwaterError(
                    f"corpus: {len(missing)} of {self.world_size} tasks ended and left no mark in "
                    f"{self.logging_dir.path}, the first is {missing[0]}; with `executor: ray` see that all machines "
                    "share that folder (`scratch`), else run again"
                )
            time.sleep(0.2)

    def save_executor_as_json(self, indent: int = 4) -> None:
        """datatrove would write the pipeline's attributes here, lists with an entry a rank included."""

    def _set_distributed_environment(self, node_rank: int) -> None:
        """datatrove sets variables for multi-node jobs; nothing here reads them, and they would outlive the run."""


class Workers(ABC):
    """What pipelines run on, one after the other. A context manager: after it nothing is running any more."""

    def __enter__(self) -> Self:
        """Starts what there is to start before the first pipeline.

        Raises:
            HeadwaterError: there is nothing to run on.
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
        `meanwhile`, work of this process's own, is done when the workers have begun.

        Each rank gets its own copy of the steps. Its mark of completion is `completions/{rank:05}` in `logging_dir`;
        ranks that have one are not run again.

        Raises:
            HeadwaterError: a process was killed, or a rank left no mark. What a rank itself raises is passed on as it
                is; the others are stopped at once.
        """

    @abstractmethod
    def prepare(self, load: Callable[[], None]) -> None:
        """Lets processes that have nothing to do now load what they will need soon; does not wait for them."""


@contextmanager
def work_folder(config: CorpusConfig, writer: ArtifactWriter) -> Iterator[Path]:
    """A folder for intermediate files that all workers see; it is gone afterwards.

    It lies in `scratch` if the config names one, else in the writer's own. What a killed attempt at the same artifact
    left in `scratch` is removed.

    Raises:
        ConfigError: `scratch` is no folder, or is not set where machines of a Ray cluster share none.
        StoreError: it cannot be made.
    """
    if not config.scratch:
        if config.executor == "ray" and not writer.store.is_local:
            raise ConfigError(
                f"corpus: machines of a Ray cluster have to share intermediate files, which the store at "
                f"{writer.store.url} cannot hold; set corpus.scratch to a folder that all of them see"
            )
        yield writer.work("")
        return
    if "://" in config.scratch:
        raise ConfigError(f"corpus: corpus.scratch is {config.scratch}; it must be a folder of a file system")
    name = hashlib.sha256(writer.store.where(writer.folder).encode()).hexdigest()[:16]
    below = Path(config.scratch).expanduser().absolute() / f"headwater-corpus-{name}"
    shutil.rmtree(below, ignore_errors=True)
    # Its own, as the writer's: one that was taken for dead, and is not, writes on under the names that it had.
    folder = below / secrets.token_hex(4)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise StoreError(f"corpus: cannot make {folder} (corpus.scratch): {error.strerror or error}") from error
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(OSError):  # somebody else's is in it
            below.rmdir()


def portable(error: Exception) -> Exception:
    """The error itself, or, if another process could not read it, one that tells of it.

    A pool whose worker sends an exception that cannot be unpickled takes the worker for killed.
    """
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return HeadwaterError(f"corpus: {type(error).__name__}: {error}")
    return error


@contextmanager
def no_main_module() -> Iterator[None]:
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


def one_thread() -> None:
    """Threads of native libraries off in this process: the processes are the parallelism."""
    os.environ["RAYON_NUM_THREADS"] = "1"
    import pyarrow

    pyarrow.set_cpu_count(1)
