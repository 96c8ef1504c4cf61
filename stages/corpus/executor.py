"""datatrove's executors on workers that end: with the stage, with an error, and with their parent.

`LocalPipelineExecutor.run` hangs for ever when a worker is killed (multiprocessing's pool waits for it), leaves a
manager process behind when it is killed itself, and spends 10 ms a rank on setting up its log. Its ranks, pipelines,
statistics and completion files are kept here; only the pool around them is another one. What is said here of a rank
holds on a Ray cluster too, see `ray_executor`.
"""

from __future__ import annotations

import hashlib
import importlib
import itertools
import multiprocessing
import multiprocessing.connection
import os
import pickle
import secrets
import shutil
import signal
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TypeVar

from datatrove.executor.base import PipelineExecutor
from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.utils.stats import PipelineStats
from loguru import logger

from stages.artifact import ArtifactWriter, ConfigError, HeadwaterError, StoreError
from stages.corpus.config import CorpusConfig

_WINDOW = 4
"""So many ranks a process are handed to the pool at a time; it keeps each one's future until it is done."""

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


class Executor(Ranks, LocalPipelineExecutor):
    """A pipeline and its ranks 0 ... tasks-1 on this machine."""

    def __init__(self, pipeline: Sequence[PipelineStep], tasks: int, logging_dir: Path):
        super().__init__(list(pipeline), tasks=tasks, workers=1, logging_dir=str(logging_dir))


class Workers(ABC):
    """What pipelines run on, one after the other. A context manager: after it nothing is running any more."""

    @abstractmethod
    def __enter__(self) -> Workers: ...

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

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


def make_workers(config: CorpusConfig) -> Workers:
    """The workers that the config asks for. Ray is imported by none but its own, and not in this process."""
    if config.executor == "ray":
        from stages.corpus.ray_executor import RayWorkers

        return RayWorkers(config.workers, config.ray_address)
    return LocalWorkers(config.workers)


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


class LocalWorkers(Workers):
    """A pool of processes of this machine; one worker means: in this process."""

    def __init__(self, count: int):
        self._count = count
        self._pool: ProcessPoolExecutor | None = None

    def __enter__(self) -> LocalWorkers:
        """Starts the processes, so that they import what they need while this one reads its inputs."""
        if self._count > 1:
            self._started()
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
        executor = Executor(pipeline, tasks, logging_dir)
        if self._count == 1:
            if meanwhile:
                meanwhile()
            for rank in range(tasks):
                executor._run_for_rank(rank)
                done(rank)
        else:
            logging_dir.mkdir(parents=True, exist_ok=True)
            # Pickled once, not once a rank. Its name is its own, since workers keep what they read under it.
            path = logging_dir / f"pipeline-{secrets.token_hex(8)}.pickle"
            path.write_bytes(pickle.dumps(executor))
            try:
                self._run(str(path), tasks, done, meanwhile)
            except BaseException:
                self._end()
                raise
            finally:
                path.unlink()
        executor.check()

    def _run(self, path: str, tasks: int, done: Callable[[int], None], meanwhile: Callable[[], None] | None) -> None:
        pool = self._pool or self._started()
        left = iter(range(tasks))
        running: dict[Future[None], int] = {}
        try:
            while True:
                with no_main_module():
                    for rank in itertools.islice(left, _WINDOW * self._count - len(running)):
                        running[pool.submit(_run_rank, path, rank)] = rank
                if meanwhile:
                    meanwhile()
                    meanwhile = None
                if not running:
                    return
                for future in wait(running, return_when=FIRST_COMPLETED).done:
                    future.result()
                    done(running.pop(future))
        except BrokenProcessPool as error:
            raise HeadwaterError(
                "corpus: a worker process was killed, probably for want of memory; run again with fewer workers"
            ) from error

    def _started(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        self._pool = ProcessPoolExecutor(self._count, mp_context=context, initializer=start_worker)
        with no_main_module():
            for _ in range(self._count):
                self._pool.submit(_import_steps)
        return self._pool

    def _end(self) -> None:
        """Kills the processes, which have nothing to do, or nothing that is still wanted."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


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


def start_worker() -> None:
    """Prepares a worker process: one thread, and an end when its parent ends, not when a signal is sent to all.

    Ctrl-C in a terminal and a supervisor's SIGTERM reach the whole process group. They are for the parent; a worker
    that heard them would be reported as killed before the parent has told what became of its run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    one_thread()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _import_steps() -> None:
    """What a worker does first. An error would come again with the first rank, and is told there."""
    with suppress(Exception):
        importlib.import_module("stages.corpus.build")


@lru_cache(maxsize=1)
def _read_executor(path: str) -> Executor:
    executor = pickle.loads(Path(path).read_bytes())
    assert isinstance(executor, Executor)
    return executor


def _run_rank(path: str, rank: int) -> None:
    """What a worker does: one rank of the pipeline that is pickled in the file."""
    try:
        _read_executor(path)._run_for_rank(rank)
    except Exception as error:
        told = portable(error)
        if told is error:
            raise
        raise told from error
