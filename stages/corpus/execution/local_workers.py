"""Ranks on this machine: in this process, and in a pool of others.

`LocalPipelineExecutor.run` hangs forever when a worker is killed (multiprocessing's pool waits for it), leaves a
manager process behind when it is killed itself, and spends 10 ms for each rank on setting up a log. Its ranks,
pipelines, statistics and completion files are used here; only the processes differ.
"""

from __future__ import annotations

import importlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import secrets
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from functools import lru_cache, partial
from pathlib import Path

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep

from stages.corpus.execution.executor import RankRunner, Workers, hide_main_module, picklable, use_one_thread
from stages.store import HeadwaterError

_RANKS_PER_PROCESS = 2
"""Ranks that the pool is given at a time for each of its processes, so that none waits for the next."""

_OOM_SCORE_ADJ = 500
"""`oom_score_adj` of workers: when memory runs out the kernel kills a worker, not the process that reports it."""


class Executor(RankRunner, LocalPipelineExecutor):
    """A pipeline and its ranks 0 ... tasks-1 on this machine."""

    def __init__(self, pipeline: Sequence[PipelineStep], tasks: int, logging_dir: Path):
        super().__init__(list(pipeline), tasks=tasks, workers=1, logging_dir=str(logging_dir))


class LocalWorkers(Workers):
    """This process and `count - 1` others, which join as soon as they have started, without being waited for."""

    def __init__(self, count: int):
        self._count = count
        self._pool: ProcessPoolExecutor | None = None
        self._starting: list[Future[None]] = []

    def run(
        self,
        pipeline: Sequence[PipelineStep],
        tasks: int,
        logging_dir: Path,
        done: Callable[[int], None],
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        executor = Executor(pipeline, tasks, logging_dir)
        ranks = RankQueue(tasks)
        try:
            if pool := self._start():
                with _pickle_to_file(executor, logging_dir) as path:
                    ranks.attach_pool(pool, path, self._starting)
                    self._run_ranks(executor, ranks, done, meanwhile)
            else:
                self._run_ranks(executor, ranks, done, meanwhile)
        except BrokenProcessPool as error:
            self._end()
            raise HeadwaterError(
                "corpus: a worker process was killed, probably because memory ran out; run again with fewer workers"
            ) from error
        except BaseException:
            self._end()
            raise
        executor.check_complete()

    def preload(self, load: Callable[[], None]) -> None:
        if self._pool:
            for _ in range(self._count - 1):
                self._pool.submit(_load, load)

    def _run_ranks(
        self, executor: Executor, ranks: RankQueue, done: Callable[[int], None], meanwhile: Callable[[], None] | None
    ) -> None:
        if meanwhile:
            meanwhile()
        left = executor.world_size
        while left:
            mine = ranks.pop()
            if mine is not None:
                executor._run_for_rank(mine)
                done(mine)
                left -= 1
            for rank in ranks.pop_finished(wait=mine is None):
                done(rank)
                left -= 1

    def _start(self) -> ProcessPoolExecutor | None:
        """The pool, if there are other processes: they import what they need while this one reads its inputs."""
        if self._pool is None and self._count > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count - 1, mp_context=context, initializer=_start_worker)
            with hide_main_module(), _block_signals():
                self._starting = [self._pool.submit(_import_steps) for _ in range(self._count - 1)]
        return self._pool

    def _end(self) -> None:
        """Kills the processes, which are idle, or whose work is no longer needed."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


class RankQueue:
    """The ranks of a pipeline, which this process and the pool take one by one.

    The thread that receives the pool's results submits new ranks, so the pool does not wait while this process works.
    """

    _pool: ProcessPoolExecutor
    _path: str

    def __init__(self, tasks: int):
        self._lock = threading.Lock()
        self._left = deque(range(tasks))
        self._ready = self._in_flight = 0
        self._finished: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()

    def attach_pool(self, pool: ProcessPoolExecutor, path: str, starting: Sequence[Future[None]]) -> None:
        """Lets the pool take ranks, each of its processes once it has started."""
        self._pool, self._path = pool, path
        for future in starting:
            future.add_done_callback(self._started)

    def pop(self) -> int | None:
        """A rank for this process; None if all are done or in flight."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def pop_finished(self, wait: bool) -> Iterator[int]:
        """Ranks that the pool has finished; with `wait` at least one.

        Raises:
            Exception: what a rank raised.
            BrokenProcessPool: a process of the pool has died.
        """
        while wait or not self._finished.empty():
            rank, error = self._finished.get()
            if error:
                raise error
            yield rank
            wait = False

    def _started(self, future: Future[None]) -> None:
        if future.cancelled():
            return
        if error := future.exception():
            self._finished.put((-1, error))
            return
        with self._lock:
            self._ready += 1
        self._submit()

    def _returned(self, rank: int, future: Future[None]) -> None:
        if future.cancelled():
            return
        with self._lock:
            self._in_flight -= 1
        self._finished.put((rank, future.exception()))
        if not future.exception():
            self._submit()

    def _submit(self) -> None:
        """Submits ranks to the pool; near the end one for each process, so that none waits while another is idle."""
        while True:
            with self._lock:
                ahead = _RANKS_PER_PROCESS if len(self._left) > 2 * self._ready else 1
                if not self._left or self._in_flight >= ahead * self._ready:
                    return
                rank = self._left.popleft()
                self._in_flight += 1
            try:
                future = self._pool.submit(_run_rank, self._path, rank)
            except RuntimeError as error:  # the pool broke while idle, or this process shut it down
                self._finished.put((rank, error))
                return
            future.add_done_callback(partial(self._returned, rank))


@contextmanager
def _block_signals() -> Iterator[None]:
    """Blocks signals while processes start; they inherit this, until they ignore the signals themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _pickle_to_file(executor: Executor, folder: Path) -> Iterator[str]:
    """A file with a pickled pipeline, written once, not for each rank. Its name is unique, since workers cache it."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pipeline-{secrets.token_hex(8)}.pickle"
    path.write_bytes(pickle.dumps(executor))
    try:
        yield str(path)
    finally:
        path.unlink()


def _start_worker() -> None:
    """Prepares a worker process: it uses one thread, ignores signals to the group, and ends with its parent.

    Ctrl-C in a terminal and a supervisor's SIGTERM reach the whole process group. They are meant for the parent; a
    worker that ended by them would be reported as killed before the parent handles the signal.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(str(_OOM_SCORE_ADJ))
    use_one_thread()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_when_ready, args=(parent.sentinel,), daemon=True).start()


def _exit_when_ready(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _import_steps() -> None:
    """First work of a worker process. An error is ignored here, since the first rank raises it again."""
    with suppress(Exception):
        importlib.import_module("stages.corpus.build")


def _load(load: Callable[[], None]) -> None:
    """Calls `load`. An error is ignored here, since the rank that needs it raises it again."""
    with suppress(Exception):
        load()


@lru_cache(maxsize=1)
def _read_executor(path: str) -> Executor:
    executor = pickle.loads(Path(path).read_bytes())
    assert isinstance(executor, Executor)
    return executor


def _run_rank(path: str, rank: int) -> None:
    """Runs one rank of the pipeline that is pickled in the file."""
    try:
        _read_executor(path)._run_for_rank(rank)
    except Exception as error:
        sendable = picklable(error)
        if sendable is error:
            raise
        raise sendable from error
