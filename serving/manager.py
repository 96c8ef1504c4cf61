"""Follows the deployment record: which engines are to run, which one answers, and what becomes of the old one."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

from serving.config import GatewaySettings, LimitsConfig
from serving.engine import EngineProcess, engines_folder
from serving.record import Deployment, DeploymentRecord, read_record
from serving.slot import EngineSlot
from serving.status import GatewayStatus
from serving.sweep import sweep
from stages.artifact import HeadwaterError, Store

LOG = logging.getLogger("headwater.serving")
KEPT_LOGS = 20
"""Engine logs that are kept; older ones are removed when the gateway starts."""


class EngineManager:
    """Owns the engines.

    A new stable deployment gets an engine beside the old one; when it is healthy the traffic moves, the old engine
    finishes what it is answering, and ends. If the new one does not start, the old one goes on.
    """

    def __init__(self, settings: GatewaySettings, store: Store):
        self.settings, self.store = settings, store
        self.active: EngineSlot | None = None
        """The slot that gets the traffic. It may be down for the moment."""
        self.record_error: str | None = None
        self._slots: dict[str, EngineSlot] = {}
        self._record = DeploymentRecord()
        self._limits: LimitsConfig = LimitsConfig()
        self._retiring: dict[asyncio.Task[None], EngineSlot] = {}
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
        self._task = asyncio.create_task(self._follow(), name="deployment record")

    async def stop(self) -> None:
        """Ends every engine; returns when nothing of them is left."""
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for slot in self._retiring.values():
            slot.give_up_draining()
        spare, self._spare = self._spare, None
        ends = [slot.close() for slot in self._slots.values()] + ([spare.stop(1.0)] if spare else [])
        for result in await asyncio.gather(*ends, *self._retiring, return_exceptions=True):
            if isinstance(result, BaseException):
                LOG.error("an engine could not be ended: %r", result)

    def status(self) -> GatewayStatus:
        slots = [*self._retiring.values(), *self._slots.values()]
        ready = self.active is not None and self.active.state == "ready"
        return GatewayStatus(
            pid=os.getpid(),
            serving=self.active.served() if self.active and ready else None,
            engines=[slot.status() for slot in slots],
            record_updated=self._record.updated,
            record_error=self.record_error,
            warm_ready=self._spare is not None and self._spare.alive,
        )

    async def _follow(self) -> None:
        while True:
            try:
                record = await asyncio.to_thread(read_record, self.store)
                self._reconcile(record, written=record.updated != self._record.updated)
                self._record, self.record_error = record, None
            except Exception as error:  # the store is away (each kind has its own errors) or holds nonsense: go on
                if str(error) != self.record_error:
                    LOG.warning("the deployment record cannot be read: %s", error)
                self.record_error = str(error)
                self._reconcile(self._record, written=False)
            await self._keep_spare()
            await asyncio.sleep(self.settings.poll_seconds)

    def _reconcile(self, record: DeploymentRecord, *, written: bool) -> None:
        """Makes the engines what the record says. `written`: somebody has written it since the last look."""
        wanted: dict[str, Deployment] = {}
        for deployment in (record.canary, record.stable):
            if deployment:
                wanted[deployment.key] = deployment
        for key, deployment in wanted.items():
            if key not in self._slots:
                LOG.info("starting %s (%s)", deployment.names[1], deployment.model_digest[:12])
                self._slots[key] = EngineSlot(deployment, self.settings, self.store, self._take_spare)
                self._slots[key].open()
            elif written:
                self._slots[key].retry()
            self._slots[key].role = "stable" if deployment is record.stable else "canary"
        if record.stable:
            self._limits = record.stable.serving.limits
            stable = self._slots[record.stable.key]
            if self.active is not stable and stable.state == "ready":
                LOG.info("traffic goes to %s", stable.deployment.names[1])
                self.active = stable
        else:
            self.active = None
        for key, slot in list(self._slots.items()):
            if key not in wanted and slot is not self.active:
                self._retire(self._slots.pop(key))

    def _retire(self, slot: EngineSlot) -> None:
        slot.role = "retiring"
        task = asyncio.create_task(self._drain_and_close(slot))
        self._retiring[task] = slot
        task.add_done_callback(lambda done: self._retiring.pop(done, None))

    async def _drain_and_close(self, slot: EngineSlot) -> None:
        if not await slot.drained(self.settings.drain_timeout):
            LOG.warning("%s still answers %d requests; ending it", slot.deployment.names[1], slot.in_flight)
        await slot.close()
        LOG.info("%s has ended", slot.deployment.names[1])

    def _take_spare(self) -> EngineProcess | None:
        if self._spare is None or not self._spare.alive:
            return None
        spare, self._spare = self._spare, None
        return spare

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
