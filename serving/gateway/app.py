"""The public endpoint: an allow-list of OpenAI routes, an API key, limits, and the engines behind them.

vLLM's own server has routes without authentication (`/invocations`, `/tokenize`, `/pause`, `/update_weights`, ...), so
it listens on loopback under a random key, and only the routes below reach it.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from serving.config import LimitsConfig
from serving.engines.manager import EngineManager
from serving.engines.slot import EngineSlot
from serving.errors import NotReadyError
from serving.gateway.checks import check_request, read_body
from serving.gateway.keys import same_key
from serving.gateway.limits import Limiter
from serving.gateway.proxy import ProxyResponse, cancel_on_disconnect
from serving.gateway.responses import RefusedError, unavailable

PROXY_HEADERS = ("forwarded", "x-forwarded-for", "x-real-ip")


def gateway_app(manager: EngineManager, key: str) -> Starlette:
    """The ASGI application. Its start-up starts the engines, its shutdown ends them."""
    completions = CompletionEndpoint(manager, key)

    async def models(request: Request) -> Response:
        _authorize(request, key)
        exchanged = manager.active if manager.exchanging else None
        slot = exchanged or manager.ready_slot()
        assert slot.folder is not None
        length = slot.deployment.engine.max_model_len or slot.folder.max_model_len
        entries = [
            {"id": name, "object": "model", "created": 0, "owned_by": "headwater", "max_model_len": length}
            for name in slot.deployment.names
        ]
        return JSONResponse({"object": "list", "data": entries})

    async def health(request: Request) -> Response:
        if manager.ready or manager.exchanging:  # a load balancer must not remove us while requests are only queued
            return JSONResponse({"status": "ready" if manager.ready else "exchanging engines"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    async def live(request: Request) -> Response:
        return JSONResponse({"status": "live"})

    async def status(request: Request) -> Response:
        _authorize(request, key)
        if not _is_local(request):  # it has paths of this machine, and lines of logs
            raise HTTPException(404)
        return JSONResponse(manager.status().model_dump(mode="json"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await manager.start()
        try:
            yield
        finally:
            await manager.stop()

    app = Starlette(
        routes=[
            Route("/v1/completions", completions, methods=["POST"]),
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/health/live", live, methods=["GET"]),
            Route("/headwater/status", status, methods=["GET"]),
        ],
        exception_handlers={
            RefusedError: _on_refused,
            NotReadyError: _on_not_ready,
            HTTPException: _on_http_error,
            Exception: _on_internal_error,
        },
        lifespan=lifespan,
        middleware=[Middleware(RefuseAmbiguousLength)],
    )
    app.router.redirect_slashes = False  # a redirect's address would come from the Host header
    return app


class RefuseAmbiguousLength:
    """ASGI middleware: refuses a request with two lengths, of which a proxy before us may have used the other.

    The connection is closed, since nobody can say where the request ends (RFC 9112, 6.3).
    """

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and {b"content-length", b"transfer-encoding"} <= dict(scope["headers"]).keys():
            message = "a request may have Content-Length or Transfer-Encoding, not both"
            refusal = RefusedError(400, message, "ambiguous_length", headers={"Connection": "close"})
            await refusal.response()(scope, receive, send)
        else:
            await self.app(scope, receive, send)


class CompletionEndpoint:
    """The ASGI application of both completion routes.

    One function sees a request from its first byte to the last of its answer, so that `async with` counts it.
    """

    def __init__(self, manager: EngineManager, key: str):
        self.manager, self.key = manager, key
        self.limiter = Limiter()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request, manager = Request(scope, receive), self.manager
        _authorize(request, self.key)
        limits = manager.limits
        deadline = time.monotonic() + limits.request_timeout_seconds
        if not manager.exchanging:
            manager.ready_slot()  # refuses before the body is read
        body = await read_body(request, limits)
        self.limiter.admit(limits, manager.in_flight.total)
        async with manager.in_flight.track() as in_flight:
            slot = manager.ready_slot() if manager.ready else await self._wait_for_slot(receive, limits)
            assert slot.folder is not None
            in_flight.engine = slot
            path, has_chat_template = scope["path"], slot.folder.has_chat_template
            fields = check_request(path, body, limits, has_chat_template=has_chat_template)
            await ProxyResponse(slot, path, fields, deadline - time.monotonic())(scope, receive, send)

    async def _wait_for_slot(self, receive: Receive, limits: LimitsConfig) -> EngineSlot:
        wait = self.manager.wait_for_ready_slot(limits.queue_timeout_seconds)
        slot = await cancel_on_disconnect(receive, wait)
        if slot is None:
            raise RefusedError(499, "the client disconnected", "client_closed_request")
        return slot


def _authorize(request: Request, key: str) -> None:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not same_key(given.strip(), key):
        raise RefusedError(
            401,
            "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
            "invalid_api_key",
            headers={"WWW-Authenticate": "Bearer"},
        )


def _is_local(request: Request) -> bool:
    """True for a client on this machine, unless it is a reverse proxy that forwards another's request."""
    if request.client is None or any(name in request.headers for name in PROXY_HEADERS):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _on_refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response()


async def _on_not_ready(request: Request, error: Exception) -> Response:
    assert isinstance(error, NotReadyError)
    return unavailable(str(error), error.retry_after_seconds).response()


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return RefusedError(404, f"there is no route {request.scope['path']}", "not_found").response()
    return RefusedError(error.status_code, error.detail, "http_error", headers=error.headers).response()


async def _on_internal_error(request: Request, error: Exception) -> Response:
    return RefusedError(500, "internal error of the gateway; see its log", "internal_error").response()
