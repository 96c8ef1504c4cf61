"""Blocking calls that may hang, in threads that do not keep the gateway from exiting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


async def run_in_daemon_thread(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    """Like `asyncio.to_thread`, but in a daemon thread: for calls to a store.

    A store that does not respond can block a call for minutes. Python waits for the threads of `to_thread` when it
    exits; with a daemon thread the gateway exits, and its engines with it, whatever the store does.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def finish(result: T | None, error: BaseException | None) -> None:
        if future.done():  # the caller was cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(result)  # type: ignore[arg-type]

    def work() -> None:
        result, error = None, None
        try:
            result = function(*arguments, **keywords)
        except BaseException as raised:  # raised again in the caller
            error = raised
        if not loop.is_closed():
            loop.call_soon_threadsafe(finish, result, error)

    threading.Thread(target=work, daemon=True, name=getattr(function, "__name__", "call")).start()
    return await future
