"""Forwards one checked request to the engine, and its answer to the client, event by event."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

import httpx
from starlette.types import Receive, Scope, Send

from serving.engines.slot import EngineSlot
from serving.gateway.responses import RefusedError, unavailable

LOG = logging.getLogger("headwater.serving")
T = TypeVar("T")
FORWARDED_HEADERS = ("content-type", "cache-control")
EVENT_END = b"\n\n"
ERROR_EVENT_TIMEOUT_SECONDS = 5.0
"""For the client of a stream to take its last event."""
HEALTH_TIMEOUT_SECONDS = 5.0
"""For the health check of an engine that has just failed a request."""


class ProxyResponse:
    """An ASGI response: the engine's answer to `fields`, posted to `path`.

    A stream is forwarded in whole events, any other answer as a whole: whatever happens to the engine, the client has
    received well-formed data and can still be sent an error. If the client disconnects, the request to the engine is
    cancelled, and vLLM aborts its sequences.
    """

    def __init__(self, slot: EngineSlot, path: str, fields: dict[str, Any], timeout_seconds: float):
        self.slot, self.path, self.fields, self.timeout_seconds = slot, path, fields, timeout_seconds
        self._started = self._streaming = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await cancel_on_disconnect(receive, self._respond(scope, receive, send))

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(self.timeout_seconds):
                await self._forward(send)
            return
        except TimeoutError:
            refusal = RefusedError(504, "the answer took longer than the time limit", "request_timeout")
        except httpx.HTTPError as error:
            LOG.warning("%s failed during a request: %r", self.slot.label, error)
            refusal = unavailable("the model's engine failed while answering; try again", self.slot.ready_in())
        except RefusedError as error:
            refusal = error
        if self._streaming:  # the status is already sent: the stream's last event is the error
            event = b"data: " + json.dumps(refusal.body()).encode() + EVENT_END
            # A client that does not read is cut off by the server; until then it must not count as in flight.
            async with asyncio.timeout(ERROR_EVENT_TIMEOUT_SECONDS):
                await send({"type": "http.response.body", "body": event, "more_body": False})
        elif self._started:
            raise RuntimeError(refusal.message)  # the server closes the connection: the client sees a truncated answer
        else:
            await refusal.response()(scope, receive, send)

    async def _forward(self, send: Send) -> None:
        client = self.slot.client
        if client is None:
            raise httpx.ConnectError("the engine has ended")
        async with client.stream("POST", self.path, json=self.fields) as answer:
            headers = [(k.encode(), answer.headers[k].encode()) for k in FORWARDED_HEADERS if k in answer.headers]
            headers.append((b"x-headwater-model", self.slot.label.encode()))
            start = {"type": "http.response.start", "status": answer.status_code, "headers": headers}
            if answer.headers.get("content-type", "").startswith("text/event-stream"):
                self._started = self._streaming = True
                await send(start)
                await self._forward_events(answer, send)
                return
            body = await answer.aread()
        if answer.status_code >= 500:  # its text is for our log only: it may contain paths and versions
            LOG.warning("%s answered %d: %s", self.slot.label, answer.status_code, body[:500].decode(errors="replace"))
            if (await client.get("/health", timeout=HEALTH_TIMEOUT_SECONDS)).status_code >= 500:
                raise httpx.RemoteProtocolError("the engine reports that it is dead")
            raise RefusedError(502, "the model's engine could not answer this request", "engine_error")
        self._started = True
        headers.append((b"content-length", str(len(body)).encode()))
        await send(start)
        await send({"type": "http.response.body", "body": body, "more_body": False})

    async def _forward_events(self, answer: httpx.Response, send: Send) -> None:
        """Forwards server-sent events, each once it is complete."""
        incomplete = b""
        async for chunk in answer.aiter_bytes():
            events, end, incomplete = (incomplete + chunk).rpartition(EVENT_END)
            if end:
                await send({"type": "http.response.body", "body": events + end, "more_body": True})
        await send({"type": "http.response.body", "body": incomplete, "more_body": False})


async def cancel_on_disconnect(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """Runs `work` and returns its result; if the client disconnects first, cancels it and returns None."""
    task, disconnect = asyncio.create_task(work), asyncio.create_task(_wait_for_disconnect(receive))
    try:
        await asyncio.wait({task, disconnect}, return_when=asyncio.FIRST_COMPLETED)
        return await task if task.done() else None
    finally:
        for each in (task, disconnect):
            each.cancel()
        await asyncio.gather(task, disconnect, return_exceptions=True)


async def _wait_for_disconnect(receive: Receive) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        while (await receive())["type"] != "http.disconnect":
            pass
