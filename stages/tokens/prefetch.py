"""Batches prepared in advance by one thread, while the consumer computes.

A thread is enough: its work, numpy's gather and casts and the copy to pinned memory, releases the GIL. The next steps
are known, since they are consecutive numbers; a request out of order (after a rollback, or past skipped batches)
restarts the thread at that step.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

T = TypeVar("T")

DEPTH = 2
"""Maximum prepared batches: one to return at once, one more against jitter. Each takes memory."""


class Prefetch(Generic[T]):
    """The results of `make` for each step, prepared in order.

    The thread ends after the last step, with an error, with `close`, and when this object is garbage-collected.

    Args:
        make: step -> item. It runs in the thread, one call at a time; it must not refer to this object, which would
            prevent its garbage collection.
        steps: number of steps: 0 to steps - 1.
        depth: maximum prepared items.
    """

    def __init__(self, make: Callable[[int], T], steps: int, depth: int = DEPTH):
        self._make, self._steps, self._depth = make, steps, depth
        self._work: _Work | None = None
        self._close: Callable[[], object] = _nothing
        self._next = 0

    def __getitem__(self, step: int) -> T:
        """The item of a step. An exception of `make` is raised here.

        Raises:
            IndexError: a step outside [0, steps).
        """
        if not 0 <= step < self._steps:
            raise IndexError(f"prefetch: step {step} is not in 0 to {self._steps - 1}")
        if self._work is None or step != self._next:
            self.close()
            self._work = _Work(self._depth)
            self._close = weakref.finalize(self, self._work.close)
            self._work.start(self._make, step, self._steps)
        try:
            item = self._work.take()
        except BaseException:
            self.close()
            raise
        self._next = step + 1
        return item

    def close(self) -> None:
        """Stops the thread and waits for it. A later request for a step starts a new one."""
        self._close()
        self._work = None


@dataclass
class _Work:
    """State shared by consumer and thread. It has no reference to the `Prefetch`, so that this can be collected."""

    depth: int
    ready: deque[Any] = field(default_factory=deque)
    error: BaseException | None = None
    closed: bool = False
    changed: threading.Condition = field(default_factory=threading.Condition)
    thread: threading.Thread | None = None

    def start(self, make: Callable[[int], Any], step: int, steps: int) -> None:
        self.thread = threading.Thread(target=self.run, args=(make, step, steps), name="prefetch", daemon=True)
        self.thread.start()

    def run(self, make: Callable[[int], Any], step: int, steps: int) -> None:
        """Body of the thread."""
        try:
            while step < steps and self._room():
                item = make(step)
                with self.changed:
                    self.ready.append(item)
                    self.changed.notify_all()
                step += 1
        except BaseException as error:  # raised in the consumer by `take`
            with self.changed:
                self.error = error
                self.changed.notify_all()

    def take(self) -> Any:
        with self.changed:
            self.changed.wait_for(lambda: self.ready or self.error)
            if not self.ready:
                assert self.error is not None
                raise self.error
            item = self.ready.popleft()
            self.changed.notify_all()
            return item

    def close(self) -> None:
        with self.changed:
            self.closed = True
            self.ready.clear()
            self.changed.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

    def _room(self) -> bool:
        with self.changed:
            self.changed.wait_for(lambda: self.closed or len(self.ready) < self.depth)
            return not self.closed


def _nothing() -> None:
    pass
