"""The requests that the gateway is handling: counted here, and nowhere else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from serving.engines.change_condition import ChangeCondition


@dataclass(eq=False)
class InFlightRequest:
    """One request that is being handled."""

    engine: object | None = None
    """The slot whose engine answers it; None while it is queued for one."""


class InFlightRequests:
    """Counts requests in flight: in total, queued, and by engine.

    A request is in flight inside `async with requests.track():`, and no longer once the block ends: by its end, an
    error or a cancellation.
    """

    def __init__(self) -> None:
        self._requests: set[InFlightRequest] = set()
        self._changes = ChangeCondition()
        self._closing = False

    @property
    def total(self) -> int:
        """All requests in flight, queued ones included."""
        return len(self._requests)

    @property
    def queued(self) -> int:
        """Requests that wait for an engine while one is exchanged for another."""
        return self.count(None)

    def count(self, engine: object | None) -> int:
        """Requests that this engine is answering."""
        return sum(request.engine is engine for request in self._requests)

    @asynccontextmanager
    async def track(self) -> AsyncIterator[InFlightRequest]:
        """Counts one request, as queued until its `engine` is set, until the end of the `async with` block."""
        request = InFlightRequest()
        self._requests.add(request)
        try:
            yield request
        finally:
            self._requests.remove(request)
            self._changes.notify()

    async def wait_until_idle(self, engine: object, timeout_seconds: float) -> bool:
        """Waits until the engine has no request in flight; False if it still has some after `timeout_seconds`.

        Returns early once `close` was called.
        """
        await self._changes.wait_for(lambda: self._closing or not self.count(engine), timeout_seconds)
        return not self.count(engine)

    def close(self) -> None:
        """Ends every `wait_until_idle`, now and later: the gateway shuts down."""
        self._closing = True
        self._changes.notify()
