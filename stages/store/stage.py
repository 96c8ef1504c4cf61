"""A stage: a plain function from config and inputs to an artifact, run once per plan.

`Stage.run(config, inputs, store)` is the contract of every stage. It computes the plan's fingerprint, returns the
artifact if it is cached, else takes the lease, calls the stage's `build`, and commits. It knows nothing of Prefect.
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
from stages.store.credentials import refuse_credentials
from stages.store.errors import LeaseHeldError, StoreError
from stages.store.lease import Holder, Lease
from stages.store.manifest import fingerprint
from stages.store.names import FOLDER
from stages.store.store import Store, translate_disk_errors

log = logging.getLogger(__name__)
C = TypeVar("C", bound=Config)

POLL_SECONDS = 1.0
"""Interval between two checks of an artifact that another process is building."""


class HasDigest(Protocol):
    """Anything that can be an input of a stage: an artifact, a listing of source files."""

    @property
    def digest(self) -> str: ...


@dataclass(frozen=True)
class Plan:
    """A stage with its config and inputs, identified, before it runs."""

    kind: str
    fingerprint: str
    folder: str
    """The folder of its artifact, built or not; with `separate_runs`, the run's folder."""
    config: dict[str, Any]
    inputs: dict[str, str]
    done: Artifact | None
    run: str | None = None


@dataclass(frozen=True)
class Stage(Generic[C]):
    """One kind of work.

    `build(config, inputs, writer)` fills the writer; `inputs` maps roles to artifacts and listings.
    """

    kind: str
    version: int
    build: Callable[[C, Mapping[str, Any], ArtifactWriter], None]
    separate_runs: bool = False
    """True where two runs of one plan may differ (training): each run gets a folder of its own."""
    check_cached: Callable[[C, Artifact], None] | None = None
    """Refuses a finished artifact that does not do what the config asks for beside the plan; raises ConfigError."""

    def plan(self, config: C, inputs: Mapping[str, HasDigest], store: Store, *, force_new_run: bool = False) -> Plan:
        """Identifies the work and looks for its artifact. `force_new_run` plans a new run, with `separate_runs`.

        Raises:
            CredentialsError: a location in the config has credentials in it; the manifest would have the whole config.
        """
        refuse_credentials(self.kind, config.model_dump(mode="json"))
        decisive = canonical(config)
        digests = {role: item.digest for role, item in sorted(inputs.items())}
        name = fingerprint(self.kind, self.version, decisive, digests)
        folder, run = f"{self.kind}/{name[:16]}", None
        if self.separate_runs:
            folder, run = self._run_folder(folder, store, force_new_run)
        done = load(store, folder)
        if done and self.check_cached:
            self.check_cached(config, done)
        return Plan(self.kind, name, folder, decisive, digests, done, run)

    def _run_folder(self, prefix: str, store: Store, force_new_run: bool) -> tuple[str, str]:
        """The plan's unfinished run, else its newest finished one, else a new one."""
        finished: list[tuple[str, Artifact]] = []
        for folder in store.folders(self.kind):
            if not folder.startswith(f"{prefix}-") or not FOLDER.fullmatch(folder):
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
        on_wait: Callable[[Holder], None] | None = None,
    ) -> Artifact:
        """Builds the artifact, or returns the cached one (manifest, existence and sizes are checked).

        Args:
            on_wait: called every POLL_SECONDS while another live process builds the same artifact: this one waits for
                it, and takes over if the other dies. Absent: LeaseHeldError at once.

        Raises:
            LeaseHeldError: another live process is building it.
            StoreError: the store, or this machine's disk, is full, read-only or unreachable; nothing is committed.
            HeadwaterError: errors of the stage itself.
        """
        plan = plan or self.plan(config, inputs, store)
        done = load(store, plan.folder)
        if done:
            done.check_sizes()
            self._remove_leftovers(store, plan.folder)
            return done
        lease = Lease(store, plan.folder)
        while on_wait and (holder := lease.acquire()):
            on_wait(holder)
            time.sleep(POLL_SECONDS)
            done = load(store, plan.folder)
            if done:
                return done
        with lease:
            done = load(store, plan.folder)
            if done:
                return done
            return self._build(config, inputs, store, plan, lease)

    def _remove_leftovers(self, store: Store, folder: str) -> None:
        """Removes what the artifact's writer left behind if it was killed after it had written the manifest."""
        if not (leftovers(store, folder, finished=True, resumes=False) or scratch_folder(store, folder).exists()):
            return
        lease = Lease(store, folder)
        try:
            if not lease.is_free() or lease.acquire():
                return  # its writer may be alive, and then does this itself
            with lease:
                shutil.rmtree(scratch_folder(store, folder), ignore_errors=True)
                for name in leftovers(store, folder, finished=True, resumes=False):
                    if not name.startswith(f"{folder}/lease-"):  # our lease, and older ones, are removed by `with`
                        store.remove(name)
        except StoreError as error:  # artifacts of a read-only store can be used all the same
            log.warning("cannot remove what a killed writer left in %s: %s", store.where(folder), error)

    def _build(self, config: C, inputs: Mapping[str, HasDigest], store: Store, plan: Plan, lease: Lease) -> Artifact:
        # It clears the scratch folder: from now on a suspended writer whose work this is cannot commit on local files.
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
            lease=lease,
        )
        done = load(store, plan.folder)
        if done:
            writer.discard()
            return done
        try:
            for name in leftovers(store, plan.folder, finished=False, resumes=self.separate_runs):
                writer.remove_leftover(name)
            writer.events.emit("started", kind=self.kind, fingerprint=plan.fingerprint, inputs=plan.inputs)
            with translate_disk_errors(self.kind, writer.scratch):
                self.build(config, inputs, writer)
                artifact = writer.commit()
        except LeaseHeldError:  # the event log is another process's by now
            writer.discard()
            raise
        except BaseException as error:
            try:
                writer.events.emit("failed", durable=True, error=f"{type(error).__name__}: {error}")
            except StoreError as failure:
                error.add_note(f"and the event log could not be written: {failure}")
            writer.discard()
            raise
        writer.events.emit("finished", durable=True, digest=artifact.digest, counts=artifact.manifest.counts)
        return artifact
