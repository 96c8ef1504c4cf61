"""Hands one checked request to the engine and its answer to the client, event by event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import httpx
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from serving.engines.slot import EngineSlot
from serving.gateway.responses import RefusedError, unavailable

LOG = logging.getLogger("headwater.serving")
T = TypeVar("T")
PASSED_HEADERS = ("content-type", "cache-control")
EVENT_END = b"\n\n"
HEALTH_TIMEOUT = 5.0
"""Seconds for an engine that has just failed a request to say whether it lives."""


class EngineAnswer(Response):
    """An ASGI response that is the engine's.

    A streamed answer is passed on by whole events, any other one as a whole: so whatever happens to the engine, what
    the client has got is well-formed, and an error can still be told. A client that goes away cancels the request
    upstream, where vLLM aborts its sequences. `on_done` is called once, however it ends.
    """

    def __init__(
        self, slot: EngineSlot, path: str, fields: dict[str, Any], timeout: float, on_done: Callable[[], None]
    ):
        super().__init__()
        self.slot, self.path, self.fields, self.timeout, self.on_done = slot, path, fields, timeout, on_done
        self.started = self.streaming = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await unless_gone(receive, self._pump(scope, receive, send))
        finally:
            self.on_done()

    async def _pump(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.timeout):
                await self._forward(send)
            return
        except TimeoutError:
            refusal = RefusedError(504, "the answer took longer than the time limit", "request_timeout")
        except httpx.HTTPError as error:
            LOG.warning("%s failed during a request: %r", self.slot.label, error)
            refusal = unavailable("the model's engine failed while answering; try again", self.slot.ready_in())
        except RefusedError as error:
            refusal = error
        if self.streaming:  # the status is out already: the stream's last event tells it
            event = b"data: " + json.dumps(refusal.body()).encode() + EVENT_END
            await send({"type": "http.response.body", "body": event, "more_body": False})
        elif self.started:
            raise RuntimeError(refusal.message)  # the server closes the connection: the client sees a cut answer
        else:
            await refusal.response()(scope, receive, send)

    async def _forward(self, send: Send) -> None:
        client = self.slot.client
        if client is None:
            raise httpx.ConnectError("the engine is gone")
        async with client.stream("POST", self.path, json=self.fields) as answer:
            headers = [(k.encode(), answer.headers[k].encode()) for k in PASSED_HEADERS if k in answer.headers]
            headers.append((b"x-headwater-model", self.slot.label.encode()))
            start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                self.started = self.streaming = True
                await send(start)
                await self._pass_events(answer, send)
                return
            body = await answer.aread()
        if answer.status_code >= 500:  # its own words are for our log: they may tell paths and versions
            LOG.warning("%s answered %d: %s", self.slot.label, answer.status_code, body[:500].decode(errors="replace"))
            if (await client.get("/health", timeout=HEALTH_TIMEOUT)).status_code >= 500:
                raise httpx.RemoteProtocolError("the engine says that it is dead")
            raise RefusedError(502, "the model's engine could not answer this request", "engine_error")
        self.started = True
        headers.append((b"content-length", str(len(body)).encode()))
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _pass_events(self, answer: httpx.Response, send: Send) -> None:
        """Server-sent events; the beginning of one that never ends is not passed on."""
        begun = b""
        async for chunk in answer.aiter_bytes():
            events, end, begun = (begun + chunk).rpartition(EVENT_END)
            if end:
                await send({"type": "http.response.body", "body": events + end, "more_body": True})
        await send({"type": "http.response.body", "body": begun, "more_body": False})


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What `work` returns; None, and it is cancelled, if the client goes away first."""
    task, gone = asyncio.create_task(work), asyncio.create_task(_disconnected(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, gone):
            each.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _disconnected(receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
