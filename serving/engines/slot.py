"""A place for one deployment's engine: starts it, watches it, starts it again when it dies or hangs, and ends it."""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from datetime import UTC, datetime
from typing import Literal, Protocol

import httpx

from serving.config import GatewaySettings
from serving.engines.engine import EngineProcess, start_engine
from serving.engines.hang_detector import until_hung
from serving.engines.threads import in_thread
from serving.gateway.status import EngineStatus, Served, State
from serving.model_folder import ModelFolder, checked_model, find_model
from serving.record import Deployment
from stages.store import Artifact, HeadwaterError, Store

LOG = logging.getLogger("headwater.serving")
FIRST_BACKOFF, LAST_BACKOFF = 1.0, 300.0
"""Seconds before the second start of an engine; doubled with every failure (1, 2, 4, ... 256, 300), up to the last."""
STEADY_SECONDS = 60.0
"""An engine that was ready for longer than this begins again with the first back-off when it dies."""
EXPECTED_START = 30.0
"""Seconds that an engine is thought to need before it has been started once."""
ROOM_INTERVAL = 0.1
"""Seconds between two looks for memory."""


class Owner(Protocol):
    """What a slot asks of the one that has all of them."""

    def may_start(self, slot: EngineSlot) -> bool:
        """Is there room for its engine beside those that run?"""

    def may_retry(self, slot: EngineSlot) -> bool:
        """Is it to start its engine again, now that it failed?"""

    def take_spare(self) -> EngineProcess | None:
        """A pre-started interpreter, which the slot then owns."""


class EngineSlot:
    """The engine of one deployment, through all its processes.

    From `open()` until `close()` or `pause()` a task starts the engine whenever there is none; `state` says
    where it is. A request that is being answered holds the slot with `begin()` and `end()`, so that `drained()` can
    wait for it.
    """

    def __init__(self, deployment: Deployment, settings: GatewaySettings, store: Store, owner: Owner):
        self.deployment, self.settings, self.store, self.owner = deployment, settings, store, owner
        self.role: Literal["stable", "canary", "retiring"] = "stable"
        self.state: State = "starting"
        self.reason: str | None = None
        self.starts = 0
        self.start_seconds: float | None = None
        self.failures = 0
        self.last_failure: str | None = None
        self.last_failure_at: datetime | None = None
        self.running = False
        """There is a process, or is about to be: it takes memory."""
        self.folder: ModelFolder | None = None
        self.engine: EngineProcess | None = None
        self.client: httpx.AsyncClient | None = None
        self.in_flight = 0
        self._artifact: Artifact | None = None
        self._began = time.monotonic()
        self._next_start = time.monotonic()
        self._idle = asyncio.Event()
        self._idle.set()
        self._retry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def label(self) -> str:
        """`name@version`, for messages."""
        return self.deployment.names[1]

    def open(self) -> None:
        """Begins to start the engine."""
        self.state, self.reason = "starting", None
        self._began = time.monotonic()
        self._task = asyncio.create_task(self._run(), name=f"engine {self.deployment.key}")

    async def close(self) -> None:
        """Ends the engine and waits until nothing of it is left."""
        self.state = "stopping"
        await self._end_task()

    def pause(self, drain_timeout: float, reason: str) -> asyncio.Task[None]:
        """From now on takes no requests; the task finishes those in flight (for `drain_timeout` seconds) and ends the
        engine. `open()` brings it back, once the task is done.
        """
        self.state, self.reason = "paused", reason

        async def end() -> None:
            await self.drained(drain_timeout)
            await self._end_task()
            if self.state != "stopping":
                self.state, self.reason = "paused", reason  # it may have died, and begun to start again, meanwhile

        return asyncio.create_task(end(), name=f"pause {self.deployment.key}")

    def retry(self) -> None:
        """Tries again at once if it failed: somebody may have mended what was wrong."""
        if self.state != "failed":
            return
        if self._task is not None and not self._task.done():
            self.state = "starting"
            self._retry.set()
        else:  # it was told to leave it: see `Owner.may_retry`
            self.open()

    def begin(self) -> None:
        self.in_flight += 1
        self._idle.clear()

    def end(self) -> None:
        self.in_flight -= 1
        if not self.in_flight:
            self._idle.set()

    def give_up_draining(self) -> None:
        """Lets `drained` return now: the gateway ends."""
        self._idle.set()

    async def drained(self, timeout: float) -> bool:
        """Waits until no request is in flight. False: some still were after `timeout` seconds."""
        try:
            await asyncio.wait_for(self._idle.wait(), timeout)
        except TimeoutError:
            return False
        return True

    def ready_in(self) -> float:
        """Seconds until the engine should be ready, going by the back-off and by how long its last start took."""
        now = time.monotonic()
        expected = self.start_seconds or EXPECTED_START
        if self.state == "failed":
            return max(0.0, self._next_start - now) + expected
        if self.state == "starting":
            return max(1.0, self._began + expected - now)
        return expected

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            try:
                engine, client = await self._start()
                ready_at = time.monotonic()
                reason = await self._until_it_ends(engine, client)
                if time.monotonic() - ready_at > STEADY_SECONDS:
                    backoff = FIRST_BACKOFF
            except HeadwaterError as error:
                reason = str(error)
            except Exception as error:  # whatever it is, it must not end the watch: it is told, and tried again
                LOG.exception("engine %s failed", self.label)
                reason = f"{type(error).__name__}: {error}"
            self._failed(reason, backoff)
            try:
                await self._end_engine()
            except Exception:
                LOG.exception("engine %s could not be ended", self.label)
            if not self.owner.may_retry(self):
                return
            try:
                await asyncio.wait_for(self._retry.wait(), max(0.0, self._next_start - time.monotonic()))
                backoff = FIRST_BACKOFF
            except TimeoutError:
                backoff = min(2 * backoff, LAST_BACKOFF)
            self._retry.clear()

    async def _start(self) -> tuple[EngineProcess, httpx.AsyncClient]:
        self.state, self._began = "starting", time.monotonic()
        # The artifact is asked for once: an engine that dies while the store is away is started from the local files.
        if self._artifact is None:
            self._artifact = await in_thread(find_model, self.store, self.deployment)
        self.folder = folder = await in_thread(checked_model, self._artifact, self.deployment.path)
        while not self.owner.may_start(self):
            self.state, self.reason = "waiting", "there is no memory for a second engine"
            await asyncio.sleep(ROOM_INTERVAL)
        self.running = True  # no `await` since `may_start`: two slots cannot take the same room
        self.state, self._began = "starting", time.monotonic()
        self.starts += 1
        log = self.settings.logs / f"engine-{self.label}-{self.deployment.key[:6]}.log"
        self.engine = spare = self.owner.take_spare()  # held from here on, so that `close` finds it
        self.engine = engine = await start_engine(self.settings, self.deployment, folder, log, spare)
        self.client = client = engine.client()
        await engine.wait_healthy(client, self.deployment.name, self.deployment.engine.start_timeout)
        self.start_seconds = round(time.monotonic() - self._began, 2)
        self.state, self.reason = "ready", None
        LOG.info("%s is ready after %.1f s", self.label, self.start_seconds)
        return engine, client

    async def _until_it_ends(self, engine: EngineProcess, client: httpx.AsyncClient) -> str:
        """Waits until the engine has died or hangs. Returns why."""
        hang_timeout = self.deployment.engine.hang_timeout
        died = asyncio.create_task(engine.process.wait())
        hung = asyncio.create_task(until_hung(client, self.deployment.name, hang_timeout, lambda: self.in_flight))
        try:
            await asyncio.wait({died, hung}, return_when=asyncio.FIRST_COMPLETED)
            what = f"the engine died ({_ending(died.result())})" if died.done() else hung.result()
            return f"{what}\n{engine.last_lines()}"
        finally:
            for task in (died, hung):
                task.cancel()

    def _failed(self, reason: str, backoff: float) -> None:
        self.failures += 1
        self.last_failure, self.last_failure_at = reason, datetime.now(UTC)
        self._next_start = time.monotonic() + backoff
        if self.state != "paused":
            self.state, self.reason = "failed", reason
        LOG.warning("%s, failure %d: %s", self.label, self.failures, reason)

    async def _end_task(self) -> None:
        task, self._task = self._task, None
        if task:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await self._end_engine()

    async def _end_engine(self) -> None:
        if self.engine:
            await self.engine.stop(self.deployment.engine.stop_grace)
        if self.client:
            await self.client.aclose()
        self.engine, self.client, self.running = None, None, False

    def served(self) -> Served:
        d = self.deployment
        return Served(key=d.key, name=d.name, version=d.version, model_digest=d.model_digest)

    def status(self) -> EngineStatus:
        trying = self._task is not None and not self._task.done()
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
            ready_in=round(self.ready_in(), 1) if trying and self.state in ("starting", "failed") else None,
            warm=bool(self.engine and self.engine.warm),
            start_seconds=self.start_seconds,
            in_flight=self.in_flight,
        )


def _ending(code: int) -> str:
    """An exit code in words; the supervisor adds 128 to a signal's number, its own death by one is negative."""
    number = code - 128 if code > 128 else -code
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"code {code}"
    return f"killed by {name}" if code > 128 else f"its supervisor was killed by {name}"
