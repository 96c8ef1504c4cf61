"""Makes a cancel in Prefect reach the process that runs the flow, whoever started it.

A worker receives cancels and ends its runs by SIGTERM. A run in a terminal has no worker, and a worker may have stopped
listening after its server was unreachable: so a run also polls its own state, and interrupts itself as Ctrl-C would.
Prefect takes that for a crash; the flow's hook on crashes says that it was a cancel.
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
from typing import TYPE_CHECKING, Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import PrefectHTTPStatusError, TerminationSignal
from prefect.states import Cancelled

if TYPE_CHECKING:
    from prefect import Flow

POLL_SECONDS = 3.0
"""Interval between two reads of the run's state."""
WORKER_GRACE_SECONDS = 20.0
"""How long a run waits for its worker's SIGTERM before it interrupts itself."""
UNREACHABLE = (httpx.HTTPError, PrefectHTTPStatusError)


_interrupted: set[UUID] = set()
"""The runs of this process that were interrupted because they were cancelled."""


class CancelledInPrefect(KeyboardInterrupt):
    """The flow run was cancelled in Prefect; the process ends as by Ctrl-C."""

    def __init__(self, run: UUID):
        super().__init__(f"flow run {run} was cancelled")
        self.run = run


def confirm_cancel(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """A flow's hook on crashes: sets the state of a run that a cancel interrupted to Cancelled, of no other run.

    If the server does not answer, its automation does so later.
    """
    if flow_run.id not in _interrupted:
        return
    try:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(flow_run.id, Cancelled(message="The run has stopped."), force=True)
    except UNREACHABLE:
        return


@contextmanager
def interrupt_on_cancel(run: UUID) -> Iterator[None]:
    """Within the block, a cancel of this flow run raises CancelledInPrefect in the main thread, where the flow runs."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        # The exception being handled, if any, is that of the code that the signal interrupted.
        if not isinstance(sys.exception(), (KeyboardInterrupt, TerminationSignal)):
            _interrupted.add(run)
            raise CancelledInPrefect(run)
        # Otherwise the run is already stopping; a second interrupt would abort its checkpoint.

    poller = _StatePoller(run)
    # Not SIGINT: shells start background jobs with SIGINT ignored. SIGTERM stays Prefect's: with another handler it
    # takes a cancel for a crash.
    before = signal.signal(signal.SIGUSR1, interrupt)
    poller.thread.start()
    try:
        yield
    finally:
        poller.ended.set()
        poller.thread.join(1.0)  # it may be waiting for a server that does not answer
        signal.signal(signal.SIGUSR1, before)


class _StatePoller:
    """Reads the run's state in a thread and sends SIGUSR1 to this process when the run is cancelled."""

    def __init__(self, run: UUID):
        self.run = run
        self.grace_seconds = WORKER_GRACE_SECONDS if os.environ.get("PREFECT__FLOW_RUN_ID") else 0.0
        self.ended = threading.Event()
        # In a copy of the context: Prefect's settings are part of it.
        self.thread = threading.Thread(target=copy_context().run, args=(self._poll,), name="cancel-poll", daemon=True)

    def _poll(self) -> None:
        since: float | None = None
        with get_client(sync_client=True) as client:
            while not self.ended.wait(POLL_SECONDS):
                if not self._is_cancelled(client):
                    continue
                since = since or time.monotonic()
                if time.monotonic() - since >= self.grace_seconds and not self.ended.is_set():
                    os.kill(os.getpid(), signal.SIGUSR1)
                    return

    def _is_cancelled(self, client: SyncPrefectClient) -> bool:
        try:
            state = client.read_flow_run(self.run).state
        except UNREACHABLE:  # the run continues; the state is read again
            return False
        return state is not None and state.type in (StateType.CANCELLING, StateType.CANCELLED)
