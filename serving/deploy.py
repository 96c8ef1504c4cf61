"""Deploys models: writes the deployment record, and waits until the gateway serves what it asks for.

This makes no artifact and starts no process: engines belong to the gateway.
"""

from __future__ import annotations

from datetime import UTC, datetime

from serving.client import wait_until_serving
from serving.record import Deployment, DeploymentRecord, read_record, write_record
from serving.status import GatewayStatus
from stages.store import Store


def deploy(
    entry: Deployment,
    store: Store,
    gateway_url: str,
    key: str,
    timeout_seconds: float | None = None,
) -> GatewayStatus:
    """Makes `entry` the stable deployment and waits until it gets the traffic.

    On failure the previous record is restored, so that a gateway that restarts serves the previous model.

    Args:
        key: the gateway's API key, for its status.
        timeout_seconds: None: the engine's start timeout and half a minute.

    Raises:
        ServingError: the model is not served; with the last lines of the engine's log.
    """
    before = read_record(store)
    record = DeploymentRecord(stable=entry)
    write_record(store, record)
    if timeout_seconds is None:
        timeout_seconds = entry.engine.start_timeout_seconds + 30.0
    try:
        return wait_until_serving(gateway_url, key, record, timeout_seconds)
    except BaseException:
        if before.stable is not None and before.stable != entry:
            write_record(store, before.model_copy(update={"updated": datetime.now(UTC)}))
        raise


def start_canary(entry: Deployment, store: Store) -> None:
    """Has the gateway start an engine for `entry` and keep it ready without traffic, while the model is evaluated.

    `deploy` then only moves the traffic; `stop_canary` ends the engine.
    """
    record = read_record(store)
    if record.stable != entry:
        write_record(store, DeploymentRecord(stable=record.stable, canary=entry))


def stop_canary(store: Store) -> None:
    """Removes the canary from the record; the stable deployment stays."""
    record = read_record(store)
    if record.canary is not None:
        write_record(store, DeploymentRecord(stable=record.stable))
