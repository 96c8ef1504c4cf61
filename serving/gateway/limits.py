"""How much a client may ask at once and over time."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.config import LimitsConfig
from serving.gateway.responses import RefusedError

SECOND = 1_000_000_000
"""In nanoseconds."""


class Limiter:
    """Counts requests in flight, and holds their rate with a token bucket.

    The bucket holds a tenth of a minute's requests (one at least) and fills evenly. It is kept as the virtual schedule
    of the generic cell rate algorithm (ITU-T I.371): the time at which the bucket would be full again. In whole
    nanoseconds, so that whoever waits as told is let in, whatever the rate.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns):
        self.clock = clock
        self.in_flight = 0
        self._full_at = clock()

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
        interval = -(-60 * SECOND // per_minute)
        size = max(interval, 6 * SECOND)
        full_at = max(now, self._full_at) + interval
        if full_at - now > size:
            wait = -(-(full_at - now - size) // SECOND)
            raise RefusedError(
                429, f"more than {per_minute} requests a minute", "rate_limited", headers={"Retry-After": str(wait)}
            )
        self._full_at = full_at
