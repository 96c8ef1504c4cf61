"""One deployment's engine: starts it, watches it, restarts it when it dies or hangs, and ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from datetime import UTC, datetime
from typing import Literal

import httpx

from serving.config import GatewaySettings
from serving.engines.change_condition import ChangeCondition
from serving.engines.daemon_thread import run_in_daemon_thread
from serving.engines.engine import EngineProcess, start_engine
from serving.engines.hang_detector import HangDetector
from serving.engines.in_flight import InFlightRequests
from serving.model_folder import ModelFolder, find_model, verify_model
from serving.record import Deployment
from serving.status import EngineStatus, Served, State
from stages.store import Artifact, HeadwaterError, Store

LOG = logging.getLogger("headwater.serving")
INITIAL_BACKOFF_SECONDS, MAX_BACKOFF_SECONDS = 1.0, 300.0
"""Before the first restart of an engine; doubled with every failure (1, 2, 4, ... 256, 300), up to the maximum."""
BACKOFF_RESET_SECONDS = 60.0
"""An engine that was ready for longer than this restarts with the initial back-off."""
EXPECTED_START_SECONDS = 30.0
"""Estimate for an engine that was never ready."""


class EngineSlot:
    """The engine of one deployment, across restarts.

    From `open()` until `close()` or `pause()` a task starts the engine whenever it is not running; `state` says where
    it is. The slot knows nothing of other engines: before it starts a process it sets `needs_memory` and waits until
    its owner calls `allow_start()`. Every change that an owner may react to is notified through `changes`.
    """

    def __init__(
        self,
        deployment: Deployment,
        settings: GatewaySettings,
        store: Store,
        in_flight: InFlightRequests,
        changes: ChangeCondition,
    ):
        self.deployment, self.settings, self.store = deployment, settings, store
        self.in_flight, self.changes = in_flight, changes
        self.role: Literal["stable", "canary", "retiring"] = "stable"
        self.state: State = "starting"
        self.reason: str | None = None
        self.starts = 0
        self.start_seconds: float | None = None
        self.failures = 0
        self.last_failure: str | None = None
        self.last_failure_at: datetime | None = None
        self.needs_memory = False
        """The model was verified, and the engine waits for `allow_start`."""
        self.holds_memory = False
        """The engine has a process, or is about to have one."""
        self.auto_restart = True
        """Restart the engine after a failure, with back-off; else only `retry()` starts it again. Set by the owner."""
        self.folder: ModelFolder | None = None
        self.engine: EngineProcess | None = None
        self.client: httpx.AsyncClient | None = None
        self._artifact: Artifact | None = None
        self._starting_since = time.monotonic()
        self._next_start = time.monotonic()
        self._start_allowed = asyncio.Event()
        self._retry_now = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def label(self) -> str:
        """`name@version`, for messages."""
        return self.deployment.names[1]

    def open(self) -> None:
        """Starts the task that keeps the engine running."""
        self._starting_since = time.monotonic()
        self._set_state("starting")
        self._task = asyncio.create_task(self._run(), name=f"engine {self.deployment.key}")

    async def close(self) -> None:
        """Ends the engine; returns when none of its processes is left."""
        self._set_state("stopping")
        await self._end_task()

    def pause(self, drain_timeout_seconds: float, reason: str) -> asyncio.Task[None]:
        """Takes no more requests; the returned task waits for those in flight, ends the engine and frees its memory.

        `open()` starts it again, once the task is done.
        """
        self._set_state("paused", reason)

        async def end() -> None:
            await self.drain(drain_timeout_seconds)
            await self._end_task()
            if self.state != "stopping":
                self._set_state("paused", reason)  # it may have died meanwhile, and begun to restart

        return asyncio.create_task(end(), name=f"pause {self.deployment.key}")

    def retry(self) -> None:
        """Starts a failed engine again at once: the cause may have been fixed."""
        if self.state != "failed":
            return
        if self._task is not None and not self._task.done():
            self._set_state("starting")
            self._retry_now.set()
        else:  # it failed without `auto_restart`
            self.open()

    def allow_start(self, warm: EngineProcess | None) -> None:
        """Lets the engine start, in this pre-started interpreter if there is one. Only while `needs_memory`."""
        # Set before the task runs again: the memory is granted only once, and `close` ends the interpreter.
        self.needs_memory, self.holds_memory, self.engine = False, True, warm
        self._set_state("starting")
        self._start_allowed.set()

    def report_no_memory(self) -> None:
        """Says that the engine has to wait for memory."""
        self._set_state("waiting", "there is no memory for a second engine")

    async def drain(self, timeout_seconds: float) -> bool:
        """Waits until no request is in flight; False if some still are after `timeout_seconds`."""
        return await self.in_flight.wait_until_idle(self, timeout_seconds)

    def ready_in(self) -> float:
        """Estimated seconds until the engine is ready, from its back-off and the duration of its last start."""
        now = time.monotonic()
        expected = self.start_seconds or EXPECTED_START_SECONDS
        if self.state == "failed":
            return max(0.0, self._next_start - now) + expected
        if self.state == "starting":
            return max(1.0, self._starting_since + expected - now)
        return expected

    def served(self) -> Served:
        """What the engine serves."""
        d = self.deployment
        return Served(key=d.key, name=d.name, version=d.version, model_digest=d.model_digest)

    def status(self) -> EngineStatus:
        """The engine's part of `/headwater/status`."""
        restarts = self._task is not None and not self._task.done()
        return EngineStatus(
            **self.served().model_dump(),
            role=self.role,
            state=self.state,
            reason=self.reason,
            log=str(self.engine.log) if self.engine else None,
            starts=self.starts,
            failures=self.failures,
            last_failure=self.last_failure,
            last_failure_at=self.last_failure_at,
            ready_in=round(self.ready_in(), 1) if restarts and self.state in ("starting", "failed") else None,
            warm=bool(self.engine and self.engine.warm),
            start_seconds=self.start_seconds,
            in_flight=self.in_flight.count(self),
        )

    def _set_state(self, state: State, reason: str | None = None) -> None:
        if (state, reason) != (self.state, self.reason):
            self.state, self.reason = state, reason
            self.changes.notify()

    async def _run(self) -> None:
        backoff = INITIAL_BACKOFF_SECONDS
        while True:
            try:
                engine, client = await self._start()
                ready_at = time.monotonic()
                reason = await self._wait_until_broken(engine, client)
                if time.monotonic() - ready_at > BACKOFF_RESET_SECONDS:
                    backoff = INITIAL_BACKOFF_SECONDS
            except HeadwaterError as error:
                reason = str(error)
            except Exception as error:  # whatever it is, it must not end this task: it is reported, and retried
                LOG.exception("engine %s failed", self.label)
                reason = f"{type(error).__name__}: {error}"
            self._record_failure(reason, backoff)
            try:
                await self._end_engine()
            except Exception:
                LOG.exception("engine %s could not be ended", self.label)
            if not self.auto_restart and not self._retry_now.is_set():
                return
            try:
                await asyncio.wait_for(self._retry_now.wait(), max(0.0, self._next_start - time.monotonic()))
                backoff = INITIAL_BACKOFF_SECONDS
            except TimeoutError:
                backoff = min(2 * backoff, MAX_BACKOFF_SECONDS)
            self._retry_now.clear()

    async def _start(self) -> tuple[EngineProcess, httpx.AsyncClient]:
        self._starting_since = time.monotonic()
        self._set_state("starting")
        # The store is asked only once: an engine that dies while the store is away restarts from the local files.
        if self._artifact is None:
            self._artifact = await run_in_daemon_thread(find_model, self.store, self.deployment)
        self.folder = folder = await run_in_daemon_thread(verify_model, self._artifact, self.deployment.path)
        await self._wait_for_memory()
        self._starting_since = time.monotonic()
        self._set_state("starting")
        self.starts += 1
        log = self.settings.logs / f"engine-{self.label}-{self.deployment.key[:6]}.log"
        self.engine = engine = await start_engine(self.settings, self.deployment, folder, log, self.engine)
        self.client = client = engine.client()
        await engine.wait_healthy(client, self.deployment.name, self.deployment.engine.start_timeout_seconds)
        self.start_seconds = round(time.monotonic() - self._starting_since, 2)
        self._set_state("ready")
        LOG.info("%s is ready after %.1f s", self.label, self.start_seconds)
        return engine, client

    async def _wait_for_memory(self) -> None:
        self._start_allowed.clear()
        self.needs_memory = True
        self.changes.notify()
        try:
            await self._start_allowed.wait()
        finally:
            self.needs_memory = False

    async def _wait_until_broken(self, engine: EngineProcess, client: httpx.AsyncClient) -> str:
        """Waits until the engine has died or hangs. Returns the reason."""
        hang_timeout_seconds = self.deployment.engine.hang_timeout_seconds
        detector = HangDetector(client, self.deployment.name, hang_timeout_seconds, lambda: self.in_flight.count(self))
        died = asyncio.create_task(engine.process.wait())
        hung = asyncio.create_task(detector.wait_until_hung())
        try:
            await asyncio.wait({died, hung}, return_when=asyncio.FIRST_COMPLETED)
            reason = f"the engine died ({_describe_exit(died.result())})" if died.done() else hung.result()
            return f"{reason}\n{engine.last_lines()}"
        finally:
            for task in (died, hung):
                task.cancel()

    def _record_failure(self, reason: str, backoff: float) -> None:
        self.failures += 1
        self.last_failure, self.last_failure_at = reason, datetime.now(UTC)
        self._next_start = time.monotonic() + backoff
        if self.state != "paused":
            self._set_state("failed", reason)
        LOG.warning("%s, failure %d: %s", self.label, self.failures, reason)

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._end_engine()

    async def _end_engine(self) -> None:
        if self.engine:
            await self.engine.stop(self.deployment.engine.stop_grace_seconds)
        if self.client:
            await self.client.aclose()
        self.engine, self.client, self.holds_memory = None, None, False
        self.changes.notify()


def _describe_exit(code: int) -> str:
    """An exit code in words; the supervisor adds 128 to a signal's number, and has a negative code if it was killed."""
    number = code - 128 if code > 128 else -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"code {code}"
    return f"killed by {name}" if code > 128 else f"its supervisor was killed by {name}"
