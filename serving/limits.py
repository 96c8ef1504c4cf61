"""How much a client may ask at once and over time."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from serving.config import LimitsConfig
from serving.responses import RefusedError


class Limiter:
    """Counts requests in flight, and holds a token bucket for their rate.

    The bucket holds a tenth of a minute's requests (one at least) and fills evenly.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self.clock = clock
        self.in_flight = 0
        self._tokens: float | None = None
        self._filled_at = clock()

    def enter(self, limits: LimitsConfig) -> None:
        """Lets one request in; whoever calls this calls `leave` in the end.

        Raises:
            RefusedError: 429 with Retry-After.
        """
        if self.in_flight >= limits.max_concurrent:
            raise RefusedError(
                429,
                f"{self.in_flight} requests are being answered, which is the limit; try again",
                "too_many_concurrent_requests",
                headers={"Retry-After": "1"},
            )
        if limits.requests_per_minute is not None:
            self._take_token(limits.requests_per_minute)
        self.in_flight += 1

    def leave(self) -> None:
        self.in_flight -= 1

    def _take_token(self, per_minute: int) -> None:
        now = self.clock()
        size = max(1.0, per_minute / 10)
        filled = (now - self._filled_at) * per_minute / 60
        self._tokens = size if self._tokens is None else min(size, self._tokens + filled)
        self._filled_at = now
        if self._tokens < 1.0:
            wait = math.ceil((1.0 - self._tokens) * 60 / per_minute)
            raise RefusedError(
                429, f"more than {per_minute} requests a minute", "rate_limited", headers={"Retry-After": str(wait)}
            )
        self._tokens -= 1.0
