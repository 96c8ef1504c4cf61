"""The public endpoint: an allow-list of OpenAI routes, a key, limits, and the engines behind them.

vLLM's own server has routes without authentication (`/invocations`, `/tokenize`, `/pause`, `/update_weights`, ...), so
it listens on loopback under a random key and only what is listed here reaches it.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from serving.config import LimitsConfig
from serving.engines.manager import EngineManager
from serving.engines.slot import EngineSlot
from serving.gateway.checks import check_request, read_body
from serving.gateway.keys import same_key
from serving.gateway.limits import Limiter
from serving.gateway.proxy import EngineAnswer, unless_gone
from serving.gateway.responses import RefusedError

FORWARDED = ("forwarded", "x-forwarded-for", "x-real-ip")


def gateway_app(manager: EngineManager, key: str) -> Starlette:
    """The ASGI application. Starting it up starts the engines, shutting it down ends them."""
    limiter = Limiter()

    def authorize(request: Request) -> None:
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not same_key(given.strip(), key):
            raise RefusedError(
                401,
                "the API key is missing or wrong; send it as `Authorization: Bearer KEY`",
                "invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )

    async def next_slot(request: Request, limits: LimitsConfig) -> EngineSlot:
        slot = await unless_gone(request.receive, manager.next_slot(limits.queue_timeout))
        if slot is None:
            raise RefusedError(499, "the client went away", "client_closed_request")
        return slot

    async def generate(request: Request) -> Response:
        authorize(request)
        limits, deadline = manager.limits, time.monotonic() + manager.limits.request_timeout
        if not manager.exchanging:
            manager.ready_slot()  # refused before the body is read
        body = await read_body(request, limits)
        limiter.enter(limits)
        try:
            slot = manager.ready_slot() if manager.ready else await next_slot(request, limits)
            assert slot.folder is not None
            fields = check_request(request.url.path, body, limits, has_chat_template=slot.folder.has_chat_template)
        except BaseException:
            limiter.leave()
            raise
        slot.begin()

        def done() -> None:
            slot.end()
            limiter.leave()

        return EngineAnswer(slot, request.url.path, fields, deadline - time.monotonic(), done)

    async def models(request: Request) -> Response:
        authorize(request)
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
        if manager.ready or manager.exchanging:  # a balancer that took us out now would turn waiting into failing
            return JSONResponse({"status": "ready" if manager.ready else "exchanging engines"})
        return JSONResponse({"status": "not ready"}, status_code=503)

    async def status(request: Request) -> Response:
        if not _from_this_machine(request):
            raise HTTPException(404)
        return JSONResponse(manager.status().model_dump(mode="json"))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        await manager.start()
        try:
            yield
        finally:
            await manager.stop()

    return Starlette(
        routes=[
            Route("/v1/completions", generate, methods=["POST"]),
            Route("/v1/chat/completions", generate, methods=["POST"]),
            Route("/v1/models", models, methods=["GET"]),
            Route("/health", health, methods=["GET"]),
            Route("/headwater/status", status, methods=["GET"]),
        ],
        exception_handlers={RefusedError: _refused, HTTPException: _http_error, Exception: _broken},
        lifespan=lifespan,
    )


def _from_this_machine(request: Request) -> bool:
    """A loopback client, and not one that a reverse proxy on this machine speaks for."""
    if request.client is None or any(name in request.headers for name in FORWARDED):
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


async def _refused(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response()


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 404:
        return RefusedError(404, f"there is no route {request.url.path}", "not_found").response()
    return RefusedError(error.status_code, error.detail, "http_error", headers=error.headers).response()


async def _broken(request: Request, error: Exception) -> Response:
    return RefusedError(500, "the gateway failed; its log says why", "internal_error").response()
