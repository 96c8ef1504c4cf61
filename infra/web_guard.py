"""Keeps web pages of other origins away from a service on this machine.

A service on loopback is reached by every page that a browser on this machine shows: it may send requests without asking
first (a form, a POST without a Content-Type), and a name of its own may resolve to 127.0.0.1 (DNS rebinding). So each
request has to be addressed to this machine, and come from no page, or from one of the service itself. Nor may the
service's own pages send anything elsewhere.
"""

from __future__ import annotations

import re

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

_HOST = re.compile(r"(?:127\.0\.0\.1|localhost|\[::1\])(?::\d{1,5})?", re.IGNORECASE)
"""Names of this machine, with any port: behind an SSH tunnel it is another one."""
_SAME_ORIGIN = ("same-origin", "none")
"""Values of Sec-Fetch-Site of requests by the service's own pages, and by the person at the browser."""
_HEADERS = (
    (b"x-frame-options", b"SAMEORIGIN"),
    # Pages of the service load and send nothing elsewhere: Prefect's would report to an analytics service.
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; frame-ancestors 'self'; form-action 'self'; "
        b"base-uri 'self'",
    ),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"same-origin"),
)


class WebGuard:
    """Answers 403 to requests for another host or from pages of another origin; the rest reaches the application."""

    def __init__(self, app: ASGIApp):
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        reason = refusal(scope)
        if not reason:
            await self._app(scope, receive, _with_headers(send) if scope["type"] == "http" else send)
        elif scope["type"] == "http":
            await PlainTextResponse(f"{reason}\n", 403)(scope, receive, send)
        else:
            await send({"type": "websocket.close", "code": 1008, "reason": reason})


def refusal(scope: Scope) -> str:
    """Why a request is refused; empty if it is not. `scope` is ASGI's."""
    hosts, origins = _values(scope, b"host"), _values(scope, b"origin")
    if len(hosts) != 1 or not _HOST.fullmatch(hosts[0]):
        return "the Host header does not name this machine"
    if len(origins) > 1 or any(not _same_origin(origin, hosts[0]) for origin in origins):
        return "the request comes from a page of another origin"
    if any(site not in _SAME_ORIGIN for site in _values(scope, b"sec-fetch-site")) and not _is_navigation(scope):
        return "the request comes from a page of another site"
    return ""


def _is_navigation(scope: Scope) -> bool:
    """Whether a person follows a link: the page that opens is not readable by the one that has the link."""
    return (
        scope["type"] == "http"
        and scope["method"] == "GET"
        and _values(scope, b"sec-fetch-mode") == ["navigate"]
        and _values(scope, b"sec-fetch-dest") == ["document"]
    )


def _same_origin(origin: str, host: str) -> bool:
    return origin.lower() in (f"http://{host.lower()}", f"https://{host.lower()}")


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]


def _with_headers(send: Send) -> Send:
    async def forward(message: Message) -> None:
        if message["type"] == "http.response.start":
            # A policy of the application stays in force beside ours, as browsers treat several.
            message = {**message, "headers": [*message.get("headers", []), *_HEADERS]}
        await send(message)

    return forward
