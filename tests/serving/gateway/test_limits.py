"""Limits on the number and the rate of requests."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from serving.config import LimitsConfig
from serving.gateway.limits import SECOND, Limiter
from serving.gateway.responses import RefusedError


@given(st.lists(st.floats(0, 5), max_size=200), st.integers(1, 600))
@example([0.0, 0.8202934003907193, 0.0], 1)
def test_rate_stays_below_the_limit(pauses: list[float], per_minute: int) -> None:
    now = 0
    limiter, limits = Limiter(lambda: now), LimitsConfig(requests_per_minute=per_minute, max_concurrent=1)
    for count, pause in enumerate(pauses, start=1):
        now += int(pause * SECOND)
        try:
            limiter.admit(limits, 0)
        except RefusedError as error:
            assert error.status == 429 and error.headers
            now += int(error.headers["Retry-After"]) * SECOND
            limiter.admit(limits, 0)  # a client that waits for Retry-After is admitted
        assert count * 60 * SECOND <= now * per_minute + max(60 * SECOND, per_minute * 6 * SECOND)


def test_concurrency_is_bounded() -> None:
    limiter, limits = Limiter(), LimitsConfig(max_concurrent=2)
    limiter.admit(limits, 0)
    limiter.admit(limits, 1)
    with pytest.raises(RefusedError) as caught:
        limiter.admit(limits, 2)
    assert caught.value.status == 429
    limiter.admit(limits, 1)
