"""Follows the deployment record: which engines are to run, which one answers, and what becomes of the old one."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from datetime import datetime
from functools import partial
from pathlib import Path

from serving.config import GatewaySettings, LimitsConfig
from serving.engines.engine import EngineProcess, engines_folder
from serving.engines.room import room_for_two
from serving.engines.slot import EngineSlot
from serving.engines.sweep import sweep
from serving.follow import RecordFollower
from serving.gateway.responses import unavailable
from serving.gateway.status import GatewayStatus
from serving.record import Deployment, DeploymentRecord
from stages.store import HeadwaterError, Store

LOG = logging.getLogger("headwater.serving")
KEPT_LOGS = 20
"""Engine logs that are kept; older ones are removed when the gateway starts."""
RECONCILE_SECONDS = 0.5
"""Between two looks at what the engines have become."""
QUEUE_INTERVAL = 0.05
"""Seconds between two looks of a request that waits for an engine."""
NO_RECORD_RETRY = 30.0
"""Seconds for Retry-After while nothing is to be served."""


class EngineManager:
    """Owns the engines.

    A new stable deployment gets an engine beside the old one; when it is healthy the traffic moves, the old engine
    finishes what it is answering, and ends. If the new one does not start, the old one goes on.

    Where there is no memory for two, the old engine is *paused* once the new model has been found in order: it finishes
    what it is answering and ends, the new one starts, and requests wait meanwhile. If the new one does not start, the
    old one is started again, and the new one is left alone until somebody writes the record again.
    """

    def __init__(self, settings: GatewaySettings, store: Store):
        self.settings, self.store = settings, store
        self.active: EngineSlot | None = None
        """The slot that gets the traffic. It may be down for the moment."""
        self.queued = 0
        """Requests that wait while one engine is exchanged for another."""
        self._exchanged: EngineSlot | None = None
        """The active slot while it is paused for another one, or comes back because that one failed."""
        self._follower = RecordFollower(store, settings.poll_seconds)
        self._slots: dict[str, EngineSlot] = {}
        self._record = DeploymentRecord()
        self._record_updated: datetime | None = None
        self._limits: LimitsConfig = LimitsConfig()
        self._retiring: dict[asyncio.Task[None], EngineSlot] = {}
        self._pausing: dict[EngineSlot, asyncio.Task[None]] = {}
        self._spare: EngineProcess | None = None
        self._spares_made = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def limits(self) -> LimitsConfig:
        """What clients may ask, as the stable deployment says."""
        return self._limits

    async def start(self) -> None:
        """Begins to follow the record."""
        for folder in (self.settings.state_folder, self.settings.logs):
            folder.mkdir(parents=True, exist_ok=True)
        if left := await asyncio.to_thread(sweep, engines_folder(self.settings.state_folder)):
            LOG.warning("ended processes that an earlier gateway left behind: %s", left)
        _remove_old_logs(self.settings.logs)
        self._follower.start()
        self._task = asyncio.create_task(self._follow(), name="deployments")

    async def stop(self) -> None:
        """Ends every engine; returns when nothing of them is left."""
        self._follower.stop()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for slot in (*self._retiring.values(), *self._pausing):
            slot.give_up_draining()
        spare, self._spare = self._spare, None
        ends = [slot.close() for slot in self._slots.values()] + ([spare.stop(1.0)] if spare else [])
        for result in await asyncio.gather(*ends, *self._retiring, *self._pausing.values(), return_exceptions=True):
            if isinstance(result, BaseException):
                LOG.error("an engine could not be ended: %r", result)

    def status(self) -> GatewayStatus:
        slots = [*self._retiring.values(), *self._slots.values()]
        return GatewayStatus(
            pid=os.getpid(),
            serving=self.active.served() if self.active and self.ready else None,
            engines=[slot.status() for slot in slots],
            record_updated=self._record_updated,
            record_error=self._follower.error,
            warm_ready=self._spare is not None and self._spare.alive,
            queued=self.queued,
        )

    @property
    def ready(self) -> bool:
        """An engine answers now."""
        return self.active is not None and self.active.state == "ready"

    @property
    def exchanging(self) -> bool:
        """One engine is being exchanged for another, and requests wait."""
        return self._exchanged is not None

    def ready_slot(self) -> EngineSlot:
        """The slot whose engine answers now.

        Raises:
            RefusedError: 503, with Retry-After from what is known about the engine that is awaited.
        """
        if self.active is not None and self.active.state == "ready":
            return self.active
        stable = self._record.stable
        awaited = self.active or (self._slots.get(stable.key) if stable else None)
        if awaited is None:
            raise unavailable("no model is served yet; `headwater status` says what is there", NO_RECORD_RETRY)
        if awaited.state == "failed":
            raise unavailable(f"the engine of {awaited.label} is down and will be started again", awaited.ready_in())
        raise unavailable(f"the engine of {awaited.label} is being started", awaited.ready_in())

    async def next_slot(self, timeout: float) -> EngineSlot:
        """The slot whose engine answers, waited for up to `timeout` seconds while engines are exchanged.

        Raises:
            RefusedError: 503 with Retry-After.
        """
        deadline = time.monotonic() + timeout
        self.queued += 1
        try:
            while self.exchanging and not self.ready and time.monotonic() < deadline:
                await asyncio.sleep(QUEUE_INTERVAL)
        finally:
            self.queued -= 1
        return self.ready_slot()

    def may_start(self, slot: EngineSlot) -> bool:
        """Is there room for this slot's engine beside those that run?"""
        gib = self.settings.two_engines_gib
        for other in self._all():
            comes_first = slot.role == "canary" and other.role == "stable" and other.state in ("starting", "waiting")
            if other is slot or not (other.running or comes_first):
                continue
            if not room_for_two(other.deployment.engine, slot.deployment.engine, gib):
                return False
        return True

    def may_retry(self, slot: EngineSlot) -> bool:
        """May this slot start its engine again by itself, now that it failed?

        Not if another engine had to end for it: that one is started again, and must not end for every attempt.
        """
        return self._exchanged is None or slot is self._exchanged

    def take_spare(self) -> EngineProcess | None:
        """The pre-started interpreter, if there is one that lives."""
        if self._spare is None or not self._spare.alive:
            return None
        spare, self._spare = self._spare, None
        return spare

    def _all(self) -> list[EngineSlot]:
        return [*self._retiring.values(), *self._slots.values()]

    async def _follow(self) -> None:
        pause = min(RECONCILE_SECONDS, self._follower.seconds)
        while True:
            record = self._follower.record or self._record
            try:
                self._reconcile(record, written=record.updated != self._record.updated)
                self._record = record
                self._record_updated = record.updated if self._follower.record else None
                await self._keep_spare()
            except Exception:  # a fault of ours must not end the watch over the engines
                LOG.exception("the engines could not be brought to what the record says")
            await asyncio.sleep(pause)

    def _reconcile(self, record: DeploymentRecord, *, written: bool) -> None:
        """Makes the engines what the record says. `written`: somebody has written it since the last look."""
        wanted: dict[str, Deployment] = {}
        for deployment in (record.canary, record.stable):
            if deployment:
                wanted[deployment.key] = deployment
        for key, deployment in wanted.items():
            if key not in self._slots:
                LOG.info("starting %s (%s)", deployment.names[1], deployment.model_digest[:12])
                self._slots[key] = EngineSlot(deployment, self.settings, self.store, self)
                self._slots[key].open()
            elif written:
                self._slots[key].retry()
            self._slots[key].role = "stable" if deployment is record.stable else "canary"
        if record.stable:
            self._limits = record.stable.serving.limits
            stable = self._slots[record.stable.key]
            if self.active is not stable and stable.state == "ready":
                LOG.info("traffic goes to %s", stable.label)
                self.active = stable
            self._make_room(stable)
            self._bring_back(stable, wanted)
        else:
            self.active = None
        if self.active is not self._exchanged or self.ready or (self.active and self.active.state == "failed"):
            self._exchanged = None
        for key, slot in list(self._slots.items()):
            if key not in wanted and slot is not self.active:
                self._retire(self._slots.pop(key))

    def _make_room(self, stable: EngineSlot) -> None:
        """Pauses the other engines where the stable deployment's waits for memory."""
        if stable.state != "waiting":
            return
        for slot in self._slots.values():
            if slot is stable or not slot.running or slot in self._pausing:
                continue
            if slot is self.active:
                self._exchanged = slot
            LOG.info("%s makes room for %s", slot.label, stable.label)
            reason = f"there is no memory for two engines: it made room for {stable.label}"
            self._pausing[slot] = slot.pause(self.settings.drain_timeout, reason)
            self._pausing[slot].add_done_callback(partial(self._paused, slot))

    def _paused(self, slot: EngineSlot, task: asyncio.Task[None]) -> None:
        del self._pausing[slot]
        if not task.cancelled() and task.exception():
            LOG.error("%s could not be paused: %r", slot.label, task.exception())

    def _bring_back(self, stable: EngineSlot, wanted: dict[str, Deployment]) -> None:
        """Starts paused engines again: the old one if the new one failed, the rest once the stable one is up."""
        for key, slot in self._slots.items():
            if slot.state != "paused" or slot in self._pausing:
                continue
            failed = slot is self._exchanged and stable.state == "failed" and not stable.running
            if slot is stable or failed or (key in wanted and stable.state == "ready"):
                slot.open()

    def _retire(self, slot: EngineSlot) -> None:
        slot.role = "retiring"
        task = asyncio.create_task(self._drain_and_close(slot))
        self._retiring[task] = slot
        task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _drain_and_close(self, slot: EngineSlot) -> None:
        if not await slot.drained(self.settings.drain_timeout):
            LOG.warning("%s still answers %d requests; ending it", slot.label, slot.in_flight)
        await slot.close()
        LOG.info("%s has ended", slot.label)

    async def _keep_spare(self) -> None:
        """Starts the next spare interpreter, unless an engine is starting: that one needs the cores."""
        if not self.settings.warm or self.settings.engine_command or (self._spare and self._spare.alive):
            return
        if any(slot.state == "starting" for slot in self._slots.values()):
            return
        if self._spare:
            LOG.warning("the pre-started interpreter ended by itself\n%s", self._spare.last_lines())
            self._spares_made += 1
        if self._spares_made >= 3:  # something is wrong with it: engines start the ordinary way
            return
        log = self.settings.logs / f"warm-{os.getpid()}-{int(asyncio.get_running_loop().time())}.log"
        try:
            self._spare = await EngineProcess.spawn_warm(self.settings, log)
        except HeadwaterError as error:
            LOG.warning("no pre-started interpreter: %s", error)
            self._spares_made = 3


def _remove_old_logs(folder: Path) -> None:
    logs = sorted(folder.glob("*-*.log"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-KEPT_LOGS]:
        path.unlink(missing_ok=True)
