"""A broken connection is reported once, by the request; other errors in the loop are still logged."""

from __future__ import annotations

import asyncio
import gc
import logging

import pytest
from fsspec.asyn import sync

from stages.store import Store


@pytest.mark.parametrize(
    ("error", "logged"),
    [(ConnectionResetError("Cannot write to closing transport"), []), (ValueError("x"), ["x"])],
    ids=repr,
)
def test_errors_of_tasks_that_nobody_awaits(
    error: Exception, logged: list[str], bucket: str, caplog: pytest.LogCaptureFixture
) -> None:
    loop = Store(f"{bucket}/store").fs.loop

    async def fail() -> None:
        raise error

    async def forget() -> None:
        task = asyncio.create_task(fail())
        await asyncio.wait([task])

    with caplog.at_level(logging.ERROR, "asyncio"):
        sync(loop, forget)
        gc.collect()
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == logged
