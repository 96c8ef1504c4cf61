"""A place for one deployment's engine: starts it, watches it, starts it again when it dies, and ends it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Literal

import httpx

from serving.config import GatewaySettings
from serving.engine import EngineProcess, start_engine
from serving.model_folder import ModelFolder, check_model_folder
from serving.record import Deployment, local_model
from serving.status import EngineStatus, Served, State
from stages.artifact import HeadwaterError, Store

LOG = logging.getLogger("headwater.serving")
FIRST_BACKOFF, LAST_BACKOFF = 1.0, 300.0
"""Seconds before the second start of an engine; doubled with every start that fails, up to the last."""

TakeSpare = Callable[[], EngineProcess | None]


class EngineSlot:
    """The engine of one deployment, through all its processes.

    `run()` is a task that lives until `close()`; `state` says where it is. A request that is being answered holds the
    slot with `begin()` and `end()`, so that `drained()` can wait for it.
    """

    def __init__(self, deployment: Deployment, settings: GatewaySettings, store: Store, take_spare: TakeSpare):
        self.deployment, self.settings, self.store, self.take_spare = deployment, settings, store, take_spare
        self.role: Literal["stable", "canary", "retiring"] = "stable"
        self.state: State = "starting"
        self.reason: str | None = None
        self.starts = 0
        self.start_seconds: float | None = None
        self.folder: ModelFolder | None = None
        self.engine: EngineProcess | None = None
        self.client: httpx.AsyncClient | None = None
        self.in_flight = 0
        self._idle = asyncio.Event()
        self._idle.set()
        self._retry = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Begins to start the engine."""
        self._task = asyncio.create_task(self._run(), name=f"engine {self.deployment.key}")

    async def close(self) -> None:
        """Ends the engine and waits until nothing of it is left."""
        self.state = "stopping"
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._end_engine()

    def retry(self) -> None:
        """Tries again at once if it failed: somebody may have mended what was wrong."""
        if self.state == "failed":
            self.state = "starting"
            self._retry.set()

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

    async def _run(self) -> None:
        backoff = FIRST_BACKOFF
        while True:
            try:
                engine = await self._start()
            except HeadwaterError as error:
                self._failed(str(error))
                await self._end_engine()
            except Exception as error:  # whatever it is, it must not end the watch: it is told, and tried again
                LOG.exception("engine %s: start failed", self.deployment.names[1])
                self._failed(f"{type(error).__name__}: {error}")
                await self._end_engine()
            else:
                ready_at = time.monotonic()
                await engine.process.wait()
                self._failed(f"the engine died (code {engine.process.returncode})\n{engine.last_lines()}")
                await self._end_engine()
                if time.monotonic() - ready_at > 60.0:
                    backoff = FIRST_BACKOFF
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._retry.wait(), backoff)
            self._retry.clear()
            backoff = min(2 * backoff, LAST_BACKOFF)

    async def _start(self) -> EngineProcess:
        began = time.monotonic()
        self.state = "starting"
        self.starts += 1
        path = await asyncio.to_thread(local_model, self.store, self.deployment)
        self.folder = await asyncio.to_thread(check_model_folder, path)
        log = self.settings.logs / f"engine-{self.deployment.names[1]}-{self.deployment.key[:6]}.log"
        self.engine = spare = self.take_spare()  # held from here on, so that `close` finds it
        self.engine = await start_engine(self.settings, self.deployment, self.folder, log, spare)
        self.client = self.engine.client()
        await self.engine.wait_healthy(self.client, self.deployment.name, self.deployment.engine.start_timeout)
        self.start_seconds = round(time.monotonic() - began, 2)
        self.state, self.reason = "ready", None
        LOG.info("%s is ready after %.1f s", self.deployment.names[1], self.start_seconds)
        return self.engine

    def _failed(self, reason: str) -> None:
        self.state, self.reason = "failed", reason
        LOG.warning("%s: %s", self.deployment.names[1], reason)

    async def _end_engine(self) -> None:
        engine, client, self.engine, self.client = self.engine, self.client, None, None
        if engine:
            await engine.stop(self.deployment.engine.stop_grace)
        if client:
            await client.aclose()

    def served(self) -> Served:
        d = self.deployment
        return Served(key=d.key, name=d.name, version=d.version, model_digest=d.model_digest)

    def status(self) -> EngineStatus:
        return EngineStatus(
            **self.served().model_dump(),
            role=self.role,
            state=self.state,
            reason=self.reason,
            log=str(self.engine.log) if self.engine else None,
            starts=self.starts,
            warm=bool(self.engine and self.engine.warm),
            start_seconds=self.start_seconds,
            in_flight=self.in_flight,
        )
