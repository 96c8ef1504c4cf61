"""What a Prefect server needs from us: deployments, automations that end dead runs, and a profile that finds it."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

from infra.services import RUNS_AT_A_TIME, WORK_POOL, ServiceError
from infra.settings import HEARTBEAT_SECONDS, REPOSITORY, Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROFILE = "headwater"


def register(settings: Settings) -> None:
    """Work pool, deployments and the automations that end dead runs; harmless to repeat.

    Raises:
        ServiceError: the server did not answer or refused, with what it said.
    """
    import httpx
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.exceptions import PrefectHTTPStatusError

    from flows.dead_runs import watch_for_dead_runs

    try:
        with SyncPrefectClient(settings.prefect_api_url) as client:
            _one_run_at_a_time(client)
            _deploy(settings)
            watch_for_dead_runs(client)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise ServiceError(
            f"Prefect at {settings.prefect_api_url} did not take what it needs to run the flows: {error}; "
            "`headwater down` and `headwater up` start it again"
        ) from error


def _one_run_at_a_time(client: SyncPrefectClient) -> None:
    """One machine trains one model at a time; a limit that somebody chose is kept.

    The limit is the pool's, not the deployment's: that one is a lease which the flow renews every few minutes, and
    Prefect ends a healthy run when its server happens to be away just then.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", concurrency_limit=RUNS_AT_A_TIME))
    except ObjectAlreadyExists:  # the worker makes it too, without a limit
        if client.read_work_pool(WORK_POOL).concurrency_limit is None:
            client.update_work_pool(WORK_POOL, WorkPoolUpdate(concurrency_limit=RUNS_AT_A_TIME))


def _deploy(settings: Settings) -> None:
    """Registers every deployment of prefect.yaml."""
    result = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        env={**os.environ, **settings.environment()},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise ServiceError(f"`prefect deploy --all` failed:\n{(result.stdout + result.stderr).strip()}")


def use_profile(settings: Settings) -> bool:
    """Points the user's `prefect` command at this server, from any working directory, unless they chose one.

    A profile named `headwater` is written and made active when the active one is Prefect's own default (which has no
    server). Returns False when the user's own profile was left active.
    """
    from prefect.settings import (
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        Profile,
        load_profiles,
        save_profiles,
    )

    profiles = load_profiles(include_defaults=True)
    # Whoever runs the flow by way of this profile beats as often as the server expects.
    values = {
        PREFECT_API_URL: settings.prefect_api_url,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY: int(HEARTBEAT_SECONDS),
    }
    if PROFILE in profiles:
        profiles.update_profile(PROFILE, values)
    else:
        profiles.add_profile(Profile(name=PROFILE, settings=values))
    chosen = profiles.active_name
    default = chosen in (None, PROFILE, "ephemeral")
    if default:
        profiles.set_active(PROFILE)
    save_profiles(profiles)
    return default


def forget_profile() -> None:
    """Makes Prefect's default profile active again when ours is; called when the server is stopped."""
    from prefect.settings import load_profiles, save_profiles

    profiles = load_profiles(include_defaults=True)
    if profiles.active_name == PROFILE:
        profiles.set_active("ephemeral")
        profiles.remove_profile(PROFILE)
        save_profiles(profiles)
