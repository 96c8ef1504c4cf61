"""Sets up a Prefect server: deployments, automations that end dead runs, and a profile that points to it."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

from infra.credentials import client_environment, password
from infra.services import MAX_CONCURRENT_RUNS, WORK_POOL, ServiceError
from infra.settings import HEARTBEAT_SECONDS, REPOSITORY, Settings

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient

PROFILE = "headwater"


def register(settings: Settings) -> None:
    """Registers work pool, deployments and the automations that end dead runs. Idempotent.

    Raises:
        ServiceError: the server did not answer or refused; the message has its response.
    """
    import httpx
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.exceptions import PrefectHTTPStatusError

    from flows.dead_runs import install_automations

    try:
        with SyncPrefectClient(settings.prefect_api_url, auth_string=password(settings, "prefect")) as client:
            _one_run_at_a_time(client)
            _deploy(settings)
            install_automations(client)
    except (httpx.HTTPError, PrefectHTTPStatusError) as error:
        raise ServiceError(
            f"Prefect at {settings.prefect_api_url} did not accept the work pool, deployments or automations: {error}; "
            "restart it with `headwater down` and `headwater up`"
        ) from error


def _one_run_at_a_time(client: SyncPrefectClient) -> None:
    """Limits the work pool to one run at a time; a limit that a user set is kept.

    The limit is the pool's, not the deployment's: that one is a lease which the flow renews every few minutes, and
    Prefect ends a healthy run if its server does not answer at that moment.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectAlreadyExists

    try:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process", concurrency_limit=MAX_CONCURRENT_RUNS))
    except ObjectAlreadyExists:  # the worker creates it too, without a limit
        if client.read_work_pool(WORK_POOL).concurrency_limit is None:
            client.update_work_pool(WORK_POOL, WorkPoolUpdate(concurrency_limit=MAX_CONCURRENT_RUNS))


def _deploy(settings: Settings) -> None:
    """Registers every deployment of prefect.yaml."""
    result = subprocess.run(
        [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"],
        env={**os.environ, **settings.environment(), **client_environment(settings)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    if result.returncode:
        raise ServiceError(f"`prefect deploy --all` failed:\n{(result.stdout + result.stderr).strip()}")


def use_profile(settings: Settings) -> bool:
    """Points the user's `prefect` command at this server, from any working directory, unless they chose one.

    Writes a profile named `headwater` and makes it active if the active one is Prefect's own default (which has no
    server). Returns False if the user's own profile stays active. The file is readable by its owner only from then on:
    the profile has the server's password.
    """
    from prefect.settings import (
        PREFECT_API_AUTH_STRING,
        PREFECT_API_URL,
        PREFECT_FLOWS_HEARTBEAT_FREQUENCY,
        Profile,
        get_current_settings,
        load_profiles,
        save_profiles,
    )

    with contextlib.suppress(FileNotFoundError):  # Prefect creates it with this mode
        get_current_settings().profiles_path.chmod(0o600)
    profiles = load_profiles(include_defaults=True)
    # A run that uses this profile sends heartbeats as often as the server expects.
    values = {
        PREFECT_API_URL: settings.prefect_api_url,
        PREFECT_API_AUTH_STRING: password(settings, "prefect"),
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
    """Removes our profile, which has the server's password, and makes Prefect's default active if ours was.

    Called when the server is stopped.
    """
    from prefect.settings import load_profiles, save_profiles

    profiles = load_profiles(include_defaults=True)
    if PROFILE not in profiles:
        return
    if profiles.active_name == PROFILE:
        profiles.set_active("ephemeral")
    profiles.remove_profile(PROFILE)
    save_profiles(profiles)
