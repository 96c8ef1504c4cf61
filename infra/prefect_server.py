"""Prefect's server behind the web guard: `python -m infra.prefect_server --port 4200`.

It is what `prefect server start` runs, whose own password locks the interface; the guard adds what Prefect does not
check: where a request is addressed to, and which page sends it, on static files and WebSockets too.
"""

from __future__ import annotations

import argparse

import uvicorn

from infra.web_guard import WebGuard

_DOCUMENTATION = ("/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc")
KEEP_ALIVE_SECONDS = 5
PING_SECONDS = 20.0
"""Of WebSockets, as `prefect server start` has it."""


def main() -> None:
    """Serves until a signal ends it. Refuses to start without the password in the environment."""
    parser = argparse.ArgumentParser(description="Prefect's server on loopback.")
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    from prefect.server.api.server import create_app
    from prefect.settings import PREFECT_SERVER_API_AUTH_STRING

    if not PREFECT_SERVER_API_AUTH_STRING.value():
        parser.error("PREFECT_SERVER_API_AUTH_STRING is not set: the server would have no lock")
    app = create_app(final=True)
    # The interface's documentation has no lock, takes seconds to answer each time, and loads code from elsewhere.
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") not in _DOCUMENTATION]
    uvicorn.run(
        WebGuard(app),
        host="127.0.0.1",
        port=port,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        ws_ping_interval=PING_SECONDS,
        ws_ping_timeout=PING_SECONDS,
        log_level="info",
    )


if __name__ == "__main__":
    main()
