"""A cancel in Prefect reaches the process that runs the flow, whoever started it.

A worker hears of cancels and ends its runs by SIGTERM. A run in a terminal has no worker, and a worker may have stopped
listening after its server was away: so a run asks for its own state as well, and interrupts itself as Ctrl-C would.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import copy_context
from types import FrameType
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import StateType
from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal
from prefect.states import Cancelled

ASK_SECONDS = 3.0
"""Between two questions."""
WORKERS_TURN_SECONDS = 20.0
"""How long a worker has for its own SIGTERM."""
AWAY = (httpx.HTTPError, PrefectHTTPStatusError)


class CancelledInPrefect(KeyboardInterrupt):
    """Somebody cancelled the flow run; the process ends as by Ctrl-C."""

    def __init__(self, run: UUID):
        super().__init__(f"flow run {run} was cancelled")
        self.run = run

    def confirm(self) -> None:
        """Says that it is done, after Prefect has called the interrupt a crash.

        If the server is away, its automation says so later.
        """
        try:
            with get_client(sync_client=True) as client:
                client.set_flow_run_state(self.run, Cancelled(message="The run has stopped."), force=True)
        except AWAY:
            return


@contextmanager
def cancel_heard(run: UUID) -> Iterator[None]:
    """Inside, a cancel of this flow run raises CancelledInPrefect in the main thread, where the flow runs."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # Python's exception being handled here is that of what the signal came into.
        if not isinstance(sys.exception(), (KeyboardInterrupt, TerminationSignal)):
            raise CancelledInPrefect(run)
        # Else it is stopping already and writes its checkpoint, which a second interrupt would break off.

    watch = _Watch(run)
    # Not SIGINT: what is started in the background of a shell has that ignored. SIGTERM stays Prefect's: it takes a
    # cancel for a crash where the handler is another's.
    before = signal.signal(signal.SIGUSR1, interrupt)
    watch.thread.start()
    try:
        yield
    finally:
        watch.ended.set()
        watch.thread.join(1.0)  # it may be waiting for a server that is away
        signal.signal(signal.SIGUSR1, before)


class _Watch:
    def __init__(self, run: UUID):
        self.run = run
        self.patience = WORKERS_TURN_SECONDS if os.environ.get("PREFECT__FLOW_RUN_ID") else 0.0
        self.ended = threading.Event()
        # In a copy of the context: Prefect's settings are part of it.
        self.thread = threading.Thread(target=copy_context().run, args=(self._ask,), name="cancel-watch", daemon=True)

    def _ask(self) -> None:
        since: float | None = None
        with get_client(sync_client=True) as client:
            while not self.ended.wait(ASK_SECONDS):
                if not self._is_cancelled(client):
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since >= self.patience and not self.ended.is_set():
                    os.kill(os.getpid(), signal.SIGUSR1)
                    return

    def _is_cancelled(self, client: SyncPrefectClient) -> bool:
        try:
            state = client.read_flow_run(self.run).state
        except AWAY:  # the work goes on; it is asked again
            return False
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
