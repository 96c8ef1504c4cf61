"""How much a client may ask at once and over time."""

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
            limiter.enter(limits)
        except RefusedError as error:
            assert error.status == 429 and error.headers
            now += int(error.headers["Retry-After"]) * SECOND  # whoever waits as told gets in
            limiter.enter(limits)
        limiter.leave()
        assert count * 60 * SECOND <= now * per_minute + max(60 * SECOND, per_minute * 6 * SECOND)
    assert limiter.in_flight == 0


def test_concurrency_is_bounded() -> None:
    limiter, limits = Limiter(), LimitsConfig(max_concurrent=2)
    limiter.enter(limits)
    limiter.enter(limits)
    with pytest.raises(RefusedError) as caught:
        limiter.enter(limits)
    assert caught.value.status == 429
    limiter.leave()
    limiter.enter(limits)
