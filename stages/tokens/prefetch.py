"""Batches made ahead by one thread, while the consumer computes.

A thread is enough: what it does, numpy's gather and casts and the copy to pinned memory, lets go of Python's lock. It
knows the steps to come, since they are numbers; one that is asked for out of turn (after a rollback, or past skipped
batches) makes it begin anew from there.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from stages.tokens.batch import ModelInputs

T = TypeVar("T")

DEPTH = 2
"""Batches ready at most: one to hand out at once, one more against jitter. Each holds memory."""


class Prefetch(Generic[T]):
    """What `make` gives for each step, made ahead in order.

    The thread ends with the last step, with an error, with `close`, and when this object is dropped.

    Args:
        make: step -> item. It runs in the thread, one call at a time; it must not refer to this object, which would
            keep it from being dropped.
        steps: number of steps: 0 to steps - 1.
        depth: items ready at most.
    """

    def __init__(self, make: Callable[[int], T], steps: int, depth: int = DEPTH):
        self._make, self._steps, self._depth = make, steps, depth
        self._work: _Work | None = None
        self._close: Callable[[], object] = _nothing
        self._next = 0

    def __getitem__(self, step: int) -> T:
        """The item of a step. What `make` raised for it is raised here.

        Raises:
            IndexError: a step outside [0, steps).
        """
        if not 0 <= step < self._steps:
            raise IndexError(f"prefetch: step {step} of {self._steps}")
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

    def __len__(self) -> int:
        return self._steps

    def close(self) -> None:
        """Ends the thread and waits for it. A later call for a step starts a new one."""
        self._close()
        self._work = None

    def __enter__(self) -> Prefetch[T]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass
class _Work:
    """What consumer and thread share. It knows nothing of the `Prefetch`, so that this can be dropped."""

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
        """The thread's own work."""
        try:
            while step < steps and self._room():
                item = make(step)
                with self.changed:
                    self.ready.append(item)
                    self.changed.notify_all()
                step += 1
        except BaseException as error:  # whatever it is, it belongs to the consumer
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


@dataclass(frozen=True, eq=False)
class TensorInputs:
    """`ModelInputs` as tensors, in pinned memory where there is a GPU."""

    inputs: Tensor
    """int64 [n, T - 1]"""
    targets: Tensor
    """int64 [n, T - 1]"""
    positions: Tensor
    """int64 [n, T - 1]"""
    cu_seqlens: Tensor
    """int32 [documents + 1]"""
    max_seqlen: int


def tensors(arrays: ModelInputs) -> TensorInputs:
    """Model inputs as tensors: without a copy, or copied to pinned memory if CUDA is there.

    A copy to the GPU from pinned memory with `non_blocking=True` does not hold up the caller; PyTorch's allocator gives
    the memory to another batch only when the copy has ended.
    """
    import torch

    def tensor(array: NDArray[Any]) -> Tensor:
        found = torch.from_numpy(array)
        return found.pin_memory() if torch.cuda.is_available() else found

    return TensorInputs(
        inputs=tensor(arrays.inputs),
        targets=tensor(arrays.targets),
        positions=tensor(arrays.positions),
        cu_seqlens=tensor(arrays.cu_seqlens),
        max_seqlen=arrays.max_seqlen,
    )
