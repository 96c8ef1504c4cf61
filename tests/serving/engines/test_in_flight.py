"""Requests in flight are counted until they end, however they end, and waiters wake at once."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from typing import Any

import pytest

from serving.engines.change_condition import ChangeCondition
from serving.engines.in_flight import InFlightRequests

NEVER_SECONDS = 600.0


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


async def let_others_run() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_requests_are_counted_in_total_queued_and_by_engine() -> None:
    async def check() -> None:
        requests, a, b = InFlightRequests(), object(), object()
        async with requests.track() as first, requests.track() as second, requests.track():
            first.engine, second.engine = a, b
            assert (requests.total, requests.queued, requests.count(a), requests.count(b)) == (3, 1, 1, 1)
        assert (requests.total, requests.queued, requests.count(a)) == (0, 0, 0)

    run(check())


def test_a_request_that_fails_or_is_cancelled_is_no_longer_counted() -> None:
    async def check() -> None:
        requests = InFlightRequests()
        with pytest.raises(ValueError):
            async with requests.track():
                raise ValueError
        assert requests.total == 0

        async def hang() -> None:
            async with requests.track():
                await asyncio.Event().wait()

        task = asyncio.create_task(hang())
        await let_others_run()
        assert requests.total == 1
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert requests.total == 0

    run(check())


@pytest.mark.parametrize("end", ["returns", "fails", "is cancelled"])
def test_a_waiter_wakes_when_the_engines_last_request_ends(end: str) -> None:
    async def check() -> None:
        requests, engine, release = InFlightRequests(), object(), asyncio.Event()

        async def handle() -> None:
            async with requests.track() as request:
                request.engine = engine
                await release.wait()
                if end == "fails":
                    raise ValueError

        tasks = [asyncio.create_task(handle()) for _ in range(2)]
        await let_others_run()
        async with requests.track() as other:  # of another engine: does not matter
            other.engine = object()
            idle = asyncio.create_task(requests.wait_until_idle(engine, NEVER_SECONDS))
            await let_others_run()
            tasks[0].cancel()
            await let_others_run()
            assert not idle.done() and requests.count(engine) == 1
            if end == "is cancelled":
                tasks[1].cancel()
            else:
                release.set()
            await asyncio.gather(*tasks, return_exceptions=True)
            await let_others_run()  # a few turns of the event loop, no time
            assert idle.done() and await idle

    run(check())


def test_a_wait_for_idle_ends_after_its_timeout_and_when_the_gateway_shuts_down() -> None:
    async def check() -> None:
        requests, engine = InFlightRequests(), object()
        assert await requests.wait_until_idle(engine, 0)
        async with requests.track() as request:
            request.engine = engine
            assert not await requests.wait_until_idle(engine, 0.01)
            idle = asyncio.create_task(requests.wait_until_idle(engine, NEVER_SECONDS))
            await let_others_run()
            assert not idle.done()
            requests.close()
            assert not await idle
            assert not await requests.wait_until_idle(engine, NEVER_SECONDS)

    run(check())


def test_a_change_before_the_wait_is_not_missed() -> None:
    async def check() -> None:
        changes = ChangeCondition()
        version = changes.version
        changes.notify()
        assert await changes.wait_for_change(version, NEVER_SECONDS)
        began = time.monotonic()
        assert not await changes.wait_for_change(changes.version, 0.05)
        assert time.monotonic() - began >= 0.05

    run(check())
