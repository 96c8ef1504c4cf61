"""An `asyncio.Condition` that plain functions can notify too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


class ChangeCondition:
    """Wakes coroutines that wait for a condition on some state, each time that the state changes.

    A bare `asyncio.Condition` can be notified only by a coroutine that holds its lock; state here changes in plain
    functions and in `finally` blocks of cancelled tasks, which must not wait. All of it belongs to one event loop.
    """

    def __init__(self) -> None:
        self.version = 0
        """Number of notifications so far."""
        self._condition = asyncio.Condition()
        self._notifying: asyncio.Task[None] | None = None

    def notify(self) -> None:
        """Says that the state has changed: every waiter evaluates its predicate again."""
        self.version += 1
        if self._notifying is None or self._notifying.done():
            self._notifying = asyncio.get_running_loop().create_task(self._notify_all())

    async def wait_for(self, predicate: Callable[[], bool], timeout_seconds: float) -> bool:
        """Waits until the predicate is true, for at most `timeout_seconds`; returns its last value."""
        try:
            async with asyncio.timeout(timeout_seconds), self._condition:
                return await self._condition.wait_for(predicate)
        except TimeoutError:
            return predicate()

    async def wait_for_change(self, version: int, timeout_seconds: float) -> bool:
        """Waits for a notification after `version`, for at most `timeout_seconds`; returns whether there was one."""
        return await self.wait_for(lambda: self.version != version, timeout_seconds)

    async def _notify_all(self) -> None:
        async with self._condition:
            self._condition.notify_all()
