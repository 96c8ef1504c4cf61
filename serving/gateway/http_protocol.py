"""HTTP/1.1 for clients that nobody vouches for: deadlines, and a limit on connections.

Uvicorn waits for ever for a client that has sent half a header, or that does not read its answer; a few hundred of
those use up the process's files, and no connection is accepted any more. Here a client has a deadline for each thing
that it must do: send headers, and read. (The body's deadline is a limit of the deployment, in `read_body`.)
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time

from uvicorn.protocols.http.h11_impl import H11Protocol

from serving.config import GatewaySettings
from serving.errors import ServingError

LOG = logging.getLogger("headwater.serving")
RESERVED_FILES = 128
"""Open files of the gateway itself: logs, the store, and connections to engines."""
MAX_OPEN_FILES = 65536
"""The limit of open files is not raised beyond this, since some programs close every possible file when they start."""
FULL = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nRetry-After: 1\r\nConnection: close\r\n\r\n"


class GatewayProtocol(H11Protocol):
    """Uvicorn's protocol for one connection, closed when its client misses a deadline. Made by `protocol_class`."""

    settings: GatewaySettings
    max_connections: int
    waits_since: float | None = None
    """Since when it has waited for a complete request header; None while a request is being handled."""
    _header_timer: asyncio.TimerHandle | None = None
    _write_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Admits a connection, in place of another one if there are too many."""
        super().connection_made(transport)
        self._wait_for_header()
        if len(self.connections) > self.max_connections:
            self._make_room()

    def handle_events(self) -> None:
        """Handles what has arrived; a complete header ends the wait for it."""
        super().handle_events()
        if self.cycle is not None and not self.cycle.response_complete:
            self._end_wait()

    def on_response_complete(self) -> None:
        """Waits for the next header from here on, even while the rest of an unread body trickles in."""
        super().on_response_complete()
        if self.cycle.response_complete:  # else the next request had arrived already
            self._wait_for_header()

    def pause_writing(self) -> None:
        """The client has not read what was written: from now on it must make progress."""
        super().pause_writing()
        self._watch_writing(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """The client has read most of it."""
        super().resume_writing()
        self._cancel_write_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the timers."""
        self._end_wait()
        self._cancel_write_timer()
        super().connection_lost(exc)

    def _wait_for_header(self) -> None:
        self._end_wait()
        self.waits_since = time.monotonic()
        self._header_timer = self.loop.call_later(self.settings.header_timeout_seconds, self._on_header_timeout)

    def _end_wait(self) -> None:
        self.waits_since = None
        if self._header_timer is not None:
            self._header_timer.cancel()
            self._header_timer = None

    def _on_header_timeout(self) -> None:
        if self.flow.write_paused:  # it is still reading its last answer: `_watch_writing` decides
            self._wait_for_header()
            return
        self.transport.close()
        self._watch_writing(self.transport.get_write_buffer_size())

    def _watch_writing(self, unread_bytes: int) -> None:
        self._cancel_write_timer()
        timeout_seconds = self.settings.write_timeout_seconds
        self._write_timer = self.loop.call_later(timeout_seconds, self._on_write_timeout, unread_bytes)

    def _on_write_timeout(self, unread_before: int) -> None:
        unread = self.transport.get_write_buffer_size()
        if 0 < unread < unread_before:
            self._watch_writing(unread)
        else:
            self.transport.abort()

    def _cancel_write_timer(self) -> None:
        if self._write_timer is not None:
            self._write_timer.cancel()
            self._write_timer = None

    def _make_room(self) -> None:
        """Closes the connection that has waited longest for a header; this one if all others have requests."""
        others = [c for c in self.connections if isinstance(c, GatewayProtocol) and c is not self]
        waiting = [c for c in others if c.waits_since is not None and not c.transport.is_closing()]
        if waiting:
            LOG.warning("more than %d connections: the one that waited longest was closed", self.max_connections)
            min(waiting, key=lambda c: c.waits_since or 0.0).transport.abort()
        else:
            LOG.warning("more than %d connections, all with requests: a new one was refused", self.max_connections)
            self.transport.write(FULL)
            self.transport.close()


def protocol_class(settings: GatewaySettings, max_connections: int) -> type[GatewayProtocol]:
    """The protocol under these settings: uvicorn takes a class, and passes no settings of ours to it."""
    return type("GatewayProtocol", (GatewayProtocol,), {"settings": settings, "max_connections": max_connections})


def raise_file_limit() -> int:
    """Raises this process's limit of open files as far as it may; returns the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return MAX_OPEN_FILES if soft == resource.RLIM_INFINITY else soft


def connections_within(file_limit: int, max_connections: int) -> int:
    """How many connections fit into a limit of open files: each may need a second one, to an engine.

    Raises:
        ServingError: fewer than 16.
    """
    found = min(max_connections, (file_limit - RESERVED_FILES) // 2)
    if found < 16:
        raise ServingError(
            f"this process may open {file_limit} files, too few for a server; raise the limit (`ulimit -n 4096`)"
        )
    return found
