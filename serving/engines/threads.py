"""Calls that may hang, in threads that do not matter."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Like `asyncio.to_thread`, for what asks a store.

    A store that is away can hold a call up for minutes. The threads of `to_thread` are waited for when the program
    ends; this one is a daemon, so that the gateway ends (and its engines with it) whatever the store does.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():  # nobody waits any more
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function(*arguments, **keywords)
        except BaseException as raised:  # handed on to whoever waits
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=work, daemon=True, name=getattr(function, "__name__", "call")).start()
    return await future
