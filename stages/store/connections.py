"""What an object store's connections say when they break, apart from the error of the request itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger(__name__)


def quiet_lost_writes(loop: asyncio.AbstractEventLoop) -> None:
    """Keeps a broken connection from printing a traceback besides the error that its request raises.

    aiohttp writes a request in a task of its own, and forgets that task when the connection breaks first. The request
    fails, and the store tells; asyncio then adds for the programmer that nobody asked what became of the task. Whatever
    else goes wrong in the loop is told as before.
    """
    loop.set_exception_handler(_unheard)


def _unheard(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), ConnectionError):
        log.debug("%s: %r", context["message"], context["exception"])
    else:
        loop.default_exception_handler(context)
