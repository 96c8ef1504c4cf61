"""Ranks on this machine: in this process, and in a pool of others.

`LocalPipelineExecutor.run` hangs for ever when a worker is killed (multiprocessing's pool waits for it), leaves a
manager process behind when it is killed itself, and spends 10 ms a rank on setting up its log. Its ranks, pipelines,
statistics and completion files are kept here; only what they run on is another thing.
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

from stages.corpus.execution.executor import Ranks, Workers, no_main_module, one_thread, portable
from stages.store import HeadwaterError

_AHEAD = 2
"""So many ranks a process the pool is given at a time, so that none waits for the next."""

_FIRST_TO_GO = 500
"""When memory ends the kernel kills a worker (of this `oom_score_adj`), not the process that tells of it."""


class Executor(Ranks, LocalPipelineExecutor):
    """A pipeline and its ranks 0 ... tasks-1 on this machine."""

    def __init__(self, pipeline: Sequence[PipelineStep], tasks: int, logging_dir: Path):
        super().__init__(list(pipeline), tasks=tasks, workers=1, logging_dir=str(logging_dir))


class LocalWorkers(Workers):
    """This process and `count - 1` others, which take part as soon as they have started: it does not wait for them."""

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
        shares = _Shares(tasks)
        try:
            if pool := self._start():
                with _pickled(executor, logging_dir) as path:
                    shares.open(pool, path, self._starting)
                    self._take_part(executor, shares, done, meanwhile)
            else:
                self._take_part(executor, shares, done, meanwhile)
        except BrokenProcessPool as error:
            self._end()
            raise HeadwaterError(
                "corpus: a worker process was killed, probably for want of memory; run again with fewer workers"
            ) from error
        except BaseException:
            self._end()
            raise
        executor.check()

    def prepare(self, load: Callable[[], None]) -> None:
        if self._pool:
            for _ in range(self._count - 1):
                self._pool.submit(_load, load)

    def _take_part(
        self, executor: Executor, shares: _Shares, done: Callable[[int], None], meanwhile: Callable[[], None] | None
    ) -> None:
        if meanwhile:
            meanwhile()
        left = executor.world_size
        while left:
            mine = shares.take()
            if mine is not None:
                executor._run_for_rank(mine)
                done(mine)
                left -= 1
            for rank in shares.finished(wait=mine is None):
                done(rank)
                left -= 1

    def _start(self) -> ProcessPoolExecutor | None:
        """The pool, if there is to be one: its processes import what they need while this one reads its inputs."""
        if self._pool is None and self._count > 1:
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(self._count - 1, mp_context=context, initializer=_start_worker)
            with no_main_module(), _signals_held():
                self._starting = [self._pool.submit(_import_steps) for _ in range(self._count - 1)]
        return self._pool

    def _end(self) -> None:
        """Kills the processes, which have nothing to do, or nothing that is still wanted."""
        pool, self._pool = self._pool, None
        if pool is None:
            return
        for process in list((pool._processes or {}).values()):
            process.kill()
        pool.shutdown(wait=True, cancel_futures=True)


class _Shares:
    """The ranks of a pipeline, which this process and the pool take one after the other.

    The pool is fed by the thread in which its results arrive, so that it does not wait while this process is at work.
    """

    _pool: ProcessPoolExecutor
    _path: str

    def __init__(self, tasks: int):
        self._lock = threading.Lock()
        self._left = deque(range(tasks))
        self._ready = self._away = 0
        self._finished: queue.SimpleQueue[tuple[int, BaseException | None]] = queue.SimpleQueue()

    def open(self, pool: ProcessPoolExecutor, path: str, starting: Sequence[Future[None]]) -> None:
        """Lets the pool take part, each of its processes when it has started."""
        self._pool, self._path = pool, path
        for future in starting:
            future.add_done_callback(self._started)

    def take(self) -> int | None:
        """A rank for this process; none if all are done or under way."""
        with self._lock:
            return self._left.popleft() if self._left else None

    def finished(self, wait: bool) -> Iterator[int]:
        """Ranks that the pool has finished; waits for one if it is told to.

        Raises:
            Exception: what a rank raised, or that a process of the pool is gone.
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
        self._feed()

    def _returned(self, rank: int, future: Future[None]) -> None:
        if future.cancelled():
            return
        with self._lock:
            self._away -= 1
        self._finished.put((rank, future.exception()))
        if not future.exception():
            self._feed()

    def _feed(self) -> None:
        """Near the end processes are given one rank at a time: nothing waits behind another while this one is idle."""
        while True:
            with self._lock:
                ahead = _AHEAD if len(self._left) > 2 * self._ready else 1
                if not self._left or self._away >= ahead * self._ready:
                    return
                rank = self._left.popleft()
                self._away += 1
            try:
                future = self._pool.submit(_run_rank, self._path, rank)
            except RuntimeError as error:  # broken while nothing was under way, or ended by this process itself
                self._finished.put((rank, error))
                return
            future.add_done_callback(partial(self._returned, rank))


@contextmanager
def _signals_held() -> Iterator[None]:
    """Starts processes deaf to signals that are for the parent, until they can ignore them by themselves."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _pickled(executor: Executor, folder: Path) -> Iterator[str]:
    """A file with a pipeline, pickled once, not once a rank. Its name is its own: workers keep what they have read."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"pipeline-{secrets.token_hex(8)}.pickle"
    path.write_bytes(pickle.dumps(executor))
    try:
        yield str(path)
    finally:
        path.unlink()


def _start_worker() -> None:
    """Prepares a worker process: one thread, and an end when its parent ends, not when a signal is sent to all.

    Ctrl-C in a terminal and a supervisor's SIGTERM reach the whole process group. They are for the parent; a worker
    that heard them would be reported as killed before the parent has told what became of its run.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    with suppress(OSError):  # not Linux
        Path("/proc/self/oom_score_adj").write_text(str(_FIRST_TO_GO))
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


def _load(load: Callable[[], None]) -> None:
    """Loads ahead. An error would come again with the rank that needs it, and is told there."""
    with suppress(Exception):
        load()


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
