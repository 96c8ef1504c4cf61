"""Runs the engines that the deployment record asks for: which ones run, which one answers, and when old ones end."""

from __future__ import annotations

import asyncio
import logging
import os
from datetime import datetime
from functools import partial
from pathlib import Path

from serving.config import GatewaySettings, LimitsConfig
from serving.engines.change_condition import ChangeCondition
from serving.engines.engine import EngineProcess, engines_folder
from serving.engines.in_flight import InFlightRequests
from serving.engines.memory import fits_beside
from serving.engines.orphans import kill_orphans
from serving.engines.slot import EngineSlot
from serving.errors import NotReadyError
from serving.logs import limit_log
from serving.record import Deployment, DeploymentRecord
from serving.record_poller import RecordPoller
from serving.status import GatewayStatus
from stages.store import HeadwaterError, Store

LOG = logging.getLogger("headwater.serving")
MAX_LOGS = 20
"""Engine logs that are kept; older ones are removed when the gateway starts."""
RECONCILE_SECONDS = 0.5
"""Maximum time between two reads of the polled record; a change of an engine's state is acted on at once."""
MEMORY_POLL_SECONDS = 0.1
"""Between two measurements of the available memory while an engine waits for it."""
NO_RECORD_RETRY_SECONDS = 30.0
"""Retry-After while nothing is deployed."""
MAX_WARM_FAILURES = 3


class EngineManager:
    """Owns the engines' slots. It calls them; they only notify it, through `_changes`, that they have changed.

    A new stable deployment gets an engine beside the old one; when it is ready the traffic moves, the old engine is
    drained, and ends. If the new one does not start, the old one keeps serving.

    Where two engines do not fit into memory, the old one is *paused* once the new model has been verified: it is
    drained and ends, the new one starts, and requests are queued meanwhile. If the new one does not start, the old one
    is started again, and the new one is not retried until the record is written again.
    """

    def __init__(self, settings: GatewaySettings, store: Store):
        self.settings, self.store = settings, store
        self.in_flight = InFlightRequests()
        self.active: EngineSlot | None = None
        """The slot that gets the traffic. It may be down for the moment."""
        self._exchanged: EngineSlot | None = None
        """The active slot while it is paused for another one, or restarts because that one failed."""
        self._changes = ChangeCondition()
        self._poller = RecordPoller(store, settings.poll_seconds)
        self._slots: dict[str, EngineSlot] = {}
        self._record = DeploymentRecord()
        self._record_updated: datetime | None = None
        self._limits: LimitsConfig = LimitsConfig()
        self._retiring: dict[asyncio.Task[None], EngineSlot] = {}
        self._pausing: dict[EngineSlot, asyncio.Task[None]] = {}
        self._warm: EngineProcess | None = None
        """The pre-started interpreter for the next engine."""
        self._warm_failures = 0
        self._task: asyncio.Task[None] | None = None

    @property
    def limits(self) -> LimitsConfig:
        """The stable deployment's limits for clients."""
        return self._limits

    async def start(self) -> None:
        """Starts to follow the record."""
        for folder in (self.settings.state_folder, self.settings.logs):
            folder.mkdir(parents=True, exist_ok=True)
        if killed := await asyncio.to_thread(kill_orphans, engines_folder(self.settings.state_folder)):
            LOG.warning("killed processes that an earlier gateway left behind: %s", killed)
        _remove_old_logs(self.settings.logs)
        self._poller.start()
        self._task = asyncio.create_task(self._run(), name="deployments")

    async def stop(self) -> None:
        """Ends every engine; returns when none of their processes is left."""
        self._poller.stop()
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        self.in_flight.close()
        warm, self._warm = self._warm, None
        ends = [slot.close() for slot in self._slots.values()] + ([warm.stop(1.0)] if warm else [])
        for result in await asyncio.gather(*ends, *self._retiring, *self._pausing.values(), return_exceptions=True):
            if isinstance(result, BaseException):
                LOG.error("an engine could not be ended: %r", result)

    def status(self) -> GatewayStatus:
        """What `/headwater/status` answers."""
        return GatewayStatus(
            pid=os.getpid(),
            serving=self.active.served() if self.active and self.ready else None,
            engines=[slot.status() for slot in self._all_slots()],
            record_updated=self._record_updated,
            record_error=self._poller.error,
            warm_ready=self._warm is not None and self._warm.alive,
            queued=self.in_flight.queued,
        )

    @property
    def ready(self) -> bool:
        """An engine answers now."""
        return self.active is not None and self.active.state == "ready"

    @property
    def exchanging(self) -> bool:
        """One engine is being exchanged for another, and requests are queued."""
        return self._exchanged is not None

    def ready_slot(self) -> EngineSlot:
        """The slot whose engine answers now.

        Raises:
            NotReadyError: none does; with the time until one should.
        """
        if self.active is not None and self.active.state == "ready":
            return self.active
        stable = self._record.stable
        expected = self.active or (self._slots.get(stable.key) if stable else None)
        if expected is None:
            raise NotReadyError("no model is deployed; `headwater status` lists models", NO_RECORD_RETRY_SECONDS)
        if expected.state == "failed":
            raise NotReadyError(f"the engine of {expected.label} failed and will be restarted", expected.ready_in())
        raise NotReadyError(f"the engine of {expected.label} is starting", expected.ready_in())

    async def wait_for_ready_slot(self, timeout_seconds: float) -> EngineSlot:
        """The slot whose engine answers, waiting up to `timeout_seconds` while engines are exchanged.

        Raises:
            NotReadyError: none does by then.
        """
        await self._changes.wait_for(lambda: self.ready or not self.exchanging, timeout_seconds)
        return self.ready_slot()

    def _all_slots(self) -> list[EngineSlot]:
        return [*self._retiring.values(), *self._slots.values()]

    async def _run(self) -> None:
        """Follows the record and the engines' states until it is cancelled."""
        while True:
            version = self._changes.version
            record = self._poller.record or self._record
            try:
                self._reconcile(record, is_new=record.updated != self._record.updated)
                self._record = record
                self._record_updated = record.updated if self._poller.record else None
                await self._keep_warm()
                self._limit_logs()
            except Exception:  # a bug of ours must not end the supervision of the engines
                LOG.exception("the engines could not be brought to what the deployment record asks for")
                version = self._changes.version  # no retry at once, whatever the failed attempt has notified
            waits = any(slot.needs_memory for slot in self._all_slots())
            pause = min(MEMORY_POLL_SECONDS if waits else RECONCILE_SECONDS, self._poller.interval_seconds)
            await self._changes.wait_for_change(version, pause)

    def _reconcile(self, record: DeploymentRecord, *, is_new: bool) -> None:
        """Makes the engines what the record asks for. `is_new`: it was written since the last call."""
        before = self.active, self._exchanged
        wanted: dict[str, Deployment] = {}
        for deployment in (record.canary, record.stable):
            if deployment:
                wanted[deployment.key] = deployment
        for key, deployment in wanted.items():
            if key not in self._slots:
                LOG.info("starting %s (%s)", deployment.names[1], deployment.model_digest[:12])
                slot = EngineSlot(deployment, self.settings, self.store, self.in_flight, self._changes)
                self._slots[key] = slot
                slot.open()
            elif is_new:
                self._slots[key].retry()
            self._slots[key].role = "stable" if deployment is record.stable else "canary"
        self._allocate_memory()
        if record.stable:
            self._limits = record.stable.serving.limits
            stable = self._slots[record.stable.key]
            if self.active is not stable and stable.state == "ready":
                LOG.info("traffic moves to %s", stable.label)
                self.active = stable
            self._pause_others(stable)
            self._resume_paused(stable, wanted)
        else:
            self.active = None
        if self.active is not self._exchanged or self.ready or (self.active and self.active.state == "failed"):
            self._exchanged = None
        for key, slot in list(self._slots.items()):
            if key not in wanted and slot is not self.active:
                self._retire(self._slots.pop(key))
        for slot in self._all_slots():
            # A slot that another one was paused for is not retried: that one resumes, and must not pause each time.
            slot.auto_restart = self._exchanged is None or slot is self._exchanged
        if (self.active, self._exchanged) != before:
            self._changes.notify()  # requests may be queued for this

    def _allocate_memory(self) -> None:
        """Lets the engines start that wait for memory and fit beside those that run."""
        for slot in self._all_slots():
            if not slot.needs_memory:
                continue
            if self._fits(slot):
                slot.allow_start(self._take_warm())
            else:
                slot.report_no_memory()

    def _fits(self, slot: EngineSlot) -> bool:
        for other in self._all_slots():
            has_priority = slot.role == "canary" and other.role == "stable" and other.state in ("starting", "waiting")
            if other is slot or not (other.holds_memory or has_priority):
                continue
            if not fits_beside(other.deployment.engine, slot.deployment.engine, self.settings.two_engines_gib):
                return False
        return True

    def _pause_others(self, stable: EngineSlot) -> None:
        """Pauses the other engines if the stable deployment's waits for memory."""
        if stable.state != "waiting":
            return
        for slot in self._slots.values():
            if slot is stable or not slot.holds_memory or slot in self._pausing:
                continue
            if slot is self.active:
                self._exchanged = slot
            LOG.info("%s is paused: its memory is needed for %s", slot.label, stable.label)
            reason = f"paused for {stable.label}: there is no memory for two engines"
            self._pausing[slot] = slot.pause(self.settings.drain_timeout_seconds, reason)
            self._pausing[slot].add_done_callback(partial(self._on_paused, slot))

    def _on_paused(self, slot: EngineSlot, task: asyncio.Task[None]) -> None:
        del self._pausing[slot]
        self._changes.notify()
        if not task.cancelled() and task.exception():
            LOG.error("%s could not be paused: %r", slot.label, task.exception())

    def _resume_paused(self, stable: EngineSlot, wanted: dict[str, Deployment]) -> None:
        """Starts paused engines again: the old one if the new one failed, the others once the stable one is ready."""
        for key, slot in self._slots.items():
            if slot.state != "paused" or slot in self._pausing:
                continue
            failed = slot is self._exchanged and stable.state == "failed" and not stable.holds_memory
            if slot is stable or failed or (key in wanted and stable.state == "ready"):
                slot.open()

    def _retire(self, slot: EngineSlot) -> None:
        slot.role = "retiring"
        task = asyncio.create_task(self._drain_and_close(slot))
        self._retiring[task] = slot
        task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _drain_and_close(self, slot: EngineSlot) -> None:
        if not await slot.drain(self.settings.drain_timeout_seconds):
            LOG.warning("%s is ended with %d requests in flight", slot.label, self.in_flight.count(slot))
        await slot.close()
        LOG.info("%s has ended", slot.label)

    def _limit_logs(self) -> None:
        running = [slot.engine for slot in self._all_slots()]
        for engine in (*running, self._warm):
            if engine is not None:
                limit_log(engine.log)

    def _take_warm(self) -> EngineProcess | None:
        """The pre-started interpreter, if there is one; the caller then owns it."""
        if self._warm is None or not self._warm.alive:
            return None
        warm, self._warm = self._warm, None
        return warm

    async def _keep_warm(self) -> None:
        """Pre-starts the next interpreter, unless an engine is starting: that one needs the cores."""
        if not self.settings.warm or self.settings.engine_command or (self._warm and self._warm.alive):
            return
        if any(slot.state == "starting" for slot in self._slots.values()):
            return
        if self._warm:
            LOG.warning("the pre-started interpreter exited\n%s", self._warm.last_lines())
            self._warm_failures += 1
        if self._warm_failures >= MAX_WARM_FAILURES:  # engines start without one from now on
            return
        log = self.settings.logs / f"warm-{os.getpid()}-{int(asyncio.get_running_loop().time())}.log"
        try:
            self._warm = await EngineProcess.spawn_warm(self.settings, log)
        except HeadwaterError as error:
            LOG.warning("no interpreter could be pre-started: %s", error)
            self._warm_failures = MAX_WARM_FAILURES


def _remove_old_logs(folder: Path) -> None:
    logs = sorted(folder.glob("*-*.log*"), key=lambda path: path.stat().st_mtime)
    for path in logs[:-MAX_LOGS]:
        path.unlink(missing_ok=True)
