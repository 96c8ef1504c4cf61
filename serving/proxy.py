"""Hands one checked request to the engine and its answer to the client, chunk by chunk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.responses import RefusedError, unavailable
from serving.slot import EngineSlot

LOG = logging.getLogger("headwater.serving")
PASSED_HEADERS = ("content-type", "cache-control")


class EngineAnswer(Response):
    """An ASGI response that is the engine's.

    A client that goes away cancels the request upstream, where vLLM aborts its sequences. `on_done` is called once,
    however it ends.
    """

    def __init__(
        self, slot: EngineSlot, path: str, fields: dict[str, Any], timeout: float, on_done: Callable[[], None]
    ):
        super().__init__()
        self.slot, self.path, self.fields, self.timeout, self.on_done = slot, path, fields, timeout, on_done
        self.started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        pump = asyncio.create_task(self._pump(scope, receive, send))
        gone = asyncio.create_task(_disconnected(receive))
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                await pump
        finally:
            for task in (pump, gone):
                task.cancel()
            await asyncio.gather(pump, gone, return_exceptions=True)
            self.on_done()

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                await self._forward(send)
            return
        except TimeoutError:
            refusal = RefusedError(504, f"the answer took longer than {self.timeout:.0f} s", "request_timeout")
        except httpx.HTTPError as error:
            LOG.warning("%s failed during a request: %r", self.slot.deployment.names[1], error)
            refusal = unavailable("the model's engine failed while answering; try again", 5)
        if not self.started:
            await refusal.response()(scope, receive, send)
        elif self.fields.get("stream"):  # the status is out already: the stream's last event tells it
            event = f"data: {json.dumps(refusal.body())}\n\n".encode()
            await send({"type": "http.response.body", "body": event, "more_body": False})
        else:
            raise RuntimeError(refusal.message)  # the server closes the connection: the client sees a cut answer

    async def _forward(self, send: Send) -> None:
        client = self.slot.client
        if client is None:
            raise httpx.ConnectError("the engine is gone")
        async with client.stream("POST", self.path, json=self.fields) as answer:
            headers = [(k.encode(), answer.headers[k].encode()) for k in PASSED_HEADERS if k in answer.headers]
            headers.append((b"x-headwater-model", self.slot.deployment.names[1].encode()))
            self.started = True
            await send({"type": "http.response.start", "status": answer.status_code, "headers": headers})
            async for chunk in answer.aiter_bytes():
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
            await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _disconnected(receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
