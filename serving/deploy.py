"""The serve stage: tells the gateway, through the deployment record, what to serve, and waits until it does.

It leaves no artifact: what it changes is the world outside. Nothing of it must outlive the caller: engines belong to
the gateway.
"""

from __future__ import annotations

from datetime import UTC, datetime

from serving.client import Progress, wait_until_serving
from serving.gateway.status import GatewayStatus
from serving.record import Deployment, DeploymentRecord, read_record, write_record
from stages.store import Store


def deploy(
    entry: Deployment,
    store: Store,
    gateway_url: str,
    timeout: float | None = None,
    on_progress: Progress | None = None,
) -> GatewayStatus:
    """Makes `entry` the stable deployment and returns when it gets the traffic. `timeout` in seconds; the engine's own
    start time-out and half a minute when absent.

    If it fails the record is put back as it was, so that a gateway that starts anew serves what was served before.

    Raises:
        ServingError: with the last lines of the engine's log.
    """
    before = read_record(store)
    record = DeploymentRecord(stable=entry)
    write_record(store, record)
    timeout = timeout if timeout is not None else entry.engine.start_timeout + 30.0
    try:
        return wait_until_serving(gateway_url, entry.model_digest, timeout, on_progress, entry.key, record.updated)
    except BaseException:
        if before.stable is not None and before.stable != entry:
            write_record(store, before.model_copy(update={"updated": datetime.now(UTC)}))
        raise


def prepare(entry: Deployment, store: Store) -> None:
    """Has an engine for `entry` started and kept ready without traffic, while it is still being judged.

    `deploy` then only moves the traffic. `withdraw` ends it.
    """
    record = read_record(store)
    if record.stable != entry:
        write_record(store, DeploymentRecord(stable=record.stable, canary=entry))


def withdraw(store: Store) -> None:
    """Takes back what `prepare` asked for; what is served goes on."""
    record = read_record(store)
    if record.canary is not None:
        write_record(store, DeploymentRecord(stable=record.stable))
