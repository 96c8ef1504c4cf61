"""A stage: a plain function from config and inputs to an artifact, run once a plan.

`Stage.run(config, inputs, store)` is the contract of every stage. It names the plan, skips it when its artifact is
there, holds the lease, calls the stage's `build`, and commits. It knows nothing of Prefect.
"""

from __future__ import annotations

import logging
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from stages.store.artifact import Artifact, ArtifactWriter, leftovers, load, scratch_folder
from stages.store.config import Config, canonical
from stages.store.errors import StoreError
from stages.store.lease import Holder, Lease
from stages.store.manifest import fingerprint
from stages.store.store import Store, translate_disk_errors

log = logging.getLogger(__name__)
C = TypeVar("C", bound=Config)

WAIT_SECONDS = 1.0
"""Between two looks at an artifact that another process is making."""


class HasDigest(Protocol):
    """Anything that can go into a stage: an artifact, a listing of source files."""

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Plan:
    """A named piece of work, before it is done."""

    kind: str
    fingerprint: str
    folder: str
    """Where its artifact is or will be; for stages that keep runs apart, the run's folder."""
    config: dict[str, Any]
    inputs: dict[str, str]
    done: Artifact | None
    run: str | None = None


@dataclass(frozen=True)
class Stage(Generic[C]):
    """One kind of step.

    `build(config, inputs, writer)` fills the writer; `inputs` maps roles to artifacts and listings.
    """

    kind: str
    version: int
    build: Callable[[C, Mapping[str, Any], ArtifactWriter], None]
    separate_runs: bool = False
    """True where two runs of one plan may differ (training): each run gets a folder of its own."""

    def plan(self, config: C, inputs: Mapping[str, HasDigest], store: Store, *, force_new_run: bool = False) -> Plan:
        """Names the work and says whether it is done. `force_new_run` asks for a new run where runs are kept apart."""
        what = canonical(config)
        digests = {role: item.digest for role, item in sorted(inputs.items())}
        name = fingerprint(self.kind, self.version, what, digests)
        folder, run = f"{self.kind}/{name[:16]}", None
        if self.separate_runs:
            folder, run = self._run_folder(folder, store, force_new_run)
        return Plan(self.kind, name, folder, what, digests, load(store, folder), run)

    def _run_folder(self, prefix: str, store: Store, force_new_run: bool) -> tuple[str, str]:
        """Goes on with the plan's unfinished run, else takes its newest finished one, else names a new one."""
        finished: list[tuple[str, Artifact]] = []
        for folder in store.folders(self.kind):
            if not folder.startswith(f"{prefix}-"):
                continue
            artifact = load(store, folder)
            if artifact is None:
                return folder, folder.rsplit("-", 1)[-1]
            finished.append((folder, artifact))
        if finished and not force_new_run:
            folder = max(finished, key=lambda item: item[1].manifest.finished)[0]
            return folder, folder.rsplit("-", 1)[-1]
        run = secrets.token_hex(4)
        return f"{prefix}-{run}", run

    def run(
        self,
        config: C,
        inputs: Mapping[str, HasDigest],
        store: Store,
        plan: Plan | None = None,
        *,
        waiting: Callable[[Holder], None] | None = None,
    ) -> Artifact:
        """Makes the artifact, or returns the one that is there (manifest, existence and sizes are checked).

        Args:
            waiting: called once a second while another live process makes the same artifact: this one waits for it,
                and goes on itself if the other dies. Absent: refuse at once.

        Raises:
            LeaseHeldError: another live process is making it.
            StoreError: the store, or the disk of this machine, is full, read-only or away; nothing half is left.
            HeadwaterError: what the stage itself finds wrong.
        """
        plan = plan or self.plan(config, inputs, store)
        done = load(store, plan.folder)
        if done:
            done.check_sizes()
            self._tidy(store, plan.folder)
            return done
        lease = Lease(store, plan.folder)
        while waiting and (holder := lease.acquire()):
            waiting(holder)
            time.sleep(WAIT_SECONDS)
            done = load(store, plan.folder)
            if done:
                return done
        with lease:
            done = load(store, plan.folder)
            if done:
                return done
            return self._make(config, inputs, store, plan, lease)

    def _tidy(self, store: Store, folder: str) -> None:
        """Removes what the artifact's writer left if it was killed between the manifest and its own end."""
        if not (leftovers(store, folder, finished=True, resumes=False) or scratch_folder(store, folder).exists()):
            return
        lease = Lease(store, folder)
        try:
            if not lease.free() or lease.acquire():
                return  # its writer may live, and does so itself
            with lease:
                shutil.rmtree(scratch_folder(store, folder), ignore_errors=True)
                for name in leftovers(store, folder, finished=True, resumes=False):
                    if not name.startswith(f"{folder}/lease-"):  # ours, and those before it, go with `with`
                        store.remove(name)
        except StoreError as error:  # a store that may only be read serves its artifacts all the same
            log.warning("what a killed writer left in %s stays: %s", store.where(folder), error)

    def _make(self, config: C, inputs: Mapping[str, HasDigest], store: Store, plan: Plan, lease: Lease) -> Artifact:
        for name in leftovers(store, plan.folder, finished=False, resumes=self.separate_runs):
            store.remove(name)
        writer = ArtifactWriter(
            store=store,
            folder=plan.folder,
            kind=self.kind,
            stage_version=self.version,
            fingerprint=plan.fingerprint,
            config=plan.config,
            inputs=plan.inputs,
            run=plan.run,
            resolved_config=config.model_dump(mode="json"),
        )
        try:
            writer.events.emit("started", kind=self.kind, fingerprint=plan.fingerprint, inputs=plan.inputs)
            with translate_disk_errors(self.kind, writer.scratch):
                self.build(config, inputs, writer)
                lease.confirm()
                artifact = writer.commit()
        except BaseException as error:
            try:
                writer.events.emit("failed", durable=True, error=f"{type(error).__name__}: {error}")
            except StoreError as trouble:
                error.add_note(f"and the event log could not be written: {trouble}")
            writer.discard()
            raise
        writer.events.emit("finished", durable=True, digest=artifact.digest, counts=artifact.manifest.counts)
        return artifact
