"""What asyncio logs when an object store's connection breaks, besides the error of the request itself."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

log = logging.getLogger(__name__)


def silence_lost_writes(loop: asyncio.AbstractEventLoop) -> None:
    """Keeps a broken connection from printing a traceback besides the error that its request raises.

    aiohttp writes a request in a separate task, and drops that task when the connection breaks first. The request
    raises its error, which the store reports; asyncio then also logs that the task's exception was never retrieved.
    All other errors of the loop are logged as before.
    """
    loop.set_exception_handler(_handle_exception)


def _handle_exception(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    if isinstance(context.get("exception"), ConnectionError):
        log.debug("%s: %r", context["message"], context["exception"])
    else:
        loop.default_exception_handler(context)
