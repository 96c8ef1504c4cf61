"""Limits on the number and the rate of requests."""

from __future__ import annotations

import time
from collections.abc import Callable

from serving.config import LimitsConfig
from serving.gateway.responses import RefusedError

SECOND = 1_000_000_000
"""In nanoseconds."""


class Limiter:
    """Bounds the requests in flight, and their rate with a token bucket.

    The bucket holds a tenth of a minute's requests (at least one) and refills continuously. It is implemented as the
    generic cell rate algorithm (ITU-T I.371), whose only state is the time at which the bucket would be full again; in
    integer nanoseconds, so that a client that waits for Retry-After is admitted at any rate.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns):
        self.clock = clock
        self._full_at = clock()

    def admit(self, limits: LimitsConfig, in_flight: int) -> None:
        """Admits one request, while `in_flight` others are being handled.

        Raises:
            RefusedError: 429 with Retry-After.
        """
        if in_flight >= limits.max_concurrent:
            raise RefusedError(
                429,
                f"{in_flight} requests are in flight, which is the limit; try again",
                "too_many_concurrent_requests",
                headers={"Retry-After": "1"},
            )
        if limits.requests_per_minute is not None:
            self._take_token(limits.requests_per_minute)

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
